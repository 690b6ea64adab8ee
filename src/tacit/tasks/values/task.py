"""Labels that are values: one number for each sample, such as an age or a measured length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from tacit.data.budget import HELD_OUT, Budget
from tacit.data.source import Source
from tacit.data.value_budget import draw_values
from tacit.encoders.card import card_of
from tacit.errors import UsageError
from tacit.evaluation.features import extract
from tacit.rng import Rng
from tacit.tasks.base import Asked, Labels, Network, Predictions, Task, Taught
from tacit.tasks.held_out import network_outputs
from tacit.tasks.predictor import Predictor, check_number, load_head
from tacit.tasks.probing import Probing
from tacit.tasks.tables import check_table
from tacit.tasks.values.calibration import half_width
from tacit.tasks.values.floors import predict_floors
from tacit.tasks.values.grading import ValueGrades, grade_values
from tacit.tasks.values.online import ValueProbe
from tacit.tasks.values.predict import write_values
from tacit.tasks.values.probe import PROBING
from tacit.tasks.values.regressor import Regressor, ValueCard, ValueHead

_ROUNDED = 1e-3  # of the values' standard deviation: what rounding to float32 may change unnoticed


class Values(Task):
    """One number for each sample; graded by R2."""

    target: ClassVar[str] = "value"
    plural: ClassVar[str] = "values"
    score: ClassVar[str] = "r2"
    measures: ClassVar[Mapping[str, str]] = {"r2": "R2 in %", "mae": "MAE", "pearson": "Pearson r"}
    amount: ClassVar[str] = "labelled"
    counted: ClassVar[str] = "values"
    words: ClassVar[tuple[str, ...]] = ("values", "column")
    budgets: ClassVar[tuple[int, ...]] = (25, 50, 100)
    probing: ClassVar[Probing | None] = PROBING

    def check(self, source: Source, slug: str) -> None:
        """There must be values."""
        if source.values is None:
            raise UsageError(
                f"{slug} learns values, and the data have none: name a CSV of file names and numbers with "
                "--values FILE.csv (of several columns, one with --column NAME)"
            )

    def draw(
        self, source: Source, train: np.ndarray, labels: Labels, rng: Rng, validation: np.ndarray | None
    ) -> Budget:
        """So many values, small and large ones alike."""
        return draw_values(
            _known(source),
            train,
            rng,
            count=labels.labelled,
            fraction=labels.label_fraction,
            held_out=HELD_OUT if labels.held_out is None else labels.held_out,
            validation=validation,
            groups=source.groups,
        )

    def count(self, source: Source, positions: np.ndarray) -> dict[str, int]:
        """Their number."""
        return {"values": len(positions)}

    def doubts(self, source: Source, budget: Budget) -> list[str]:
        """Values that differ by less than float32, in which they are learned, can tell apart."""
        values = _known(source)[budget.labelled]
        error = np.abs(values.astype(np.float32) - values).max()
        if error <= _ROUNDED * values.std():
            return []
        return [
            f"values near {values.mean():.8g} differ by {values.std():.2g}, and are learned with seven "
            "digits: subtract their mean in the file"
        ]

    def watch(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        method: Taught,
        *,
        learned: np.ndarray,
        held_out: np.ndarray,
    ) -> ValueProbe:
        """R2 on held-out values, health, and both modes of BatchNorm."""
        return ValueProbe(source, train, rng, held_out, learned, method)

    def floors(
        self,
        source: Source,
        learned: np.ndarray,
        test: np.ndarray,
        encoder: nn.Module,
        device: torch.device | str,
    ) -> dict[str, dict[str, Any]]:
        """The mean, and ridge regression on pixels and on the frozen encoder."""
        found = predict_floors(source, learned, test, encoder, device)
        return {name: _flat(_graded(source, test, values)) for name, values in found.items()}

    def calibrate(self, network: Network, source: Source, held_out: np.ndarray) -> Regressor:
        """An interval from the held-out values.

        These also chose which of two networks is kept, so that the interval's guarantee holds nearly, not
        strictly (our choice: few values are better not divided again).
        """
        device = next(network.head.parameters()).device
        predicted = network_outputs(network, source, held_out, device).reshape(-1).numpy()
        groups = None if source.groups is None else source.groups[held_out]
        width = half_width(_known(source)[held_out], predicted, groups=groups)
        card = ValueCard(
            held_out=len(held_out),
            grades=_graded(source, held_out, predicted).as_dict() if len(held_out) else None,
            width=width.width,
            coverage=width.coverage,
            count=width.count,
            reason=width.reason,
        )
        return Regressor(network.encoder, network.head, card)

    def restore(self, encoder: nn.Module, card: Mapping[str, Any], state: Mapping[str, Tensor]) -> Regressor:
        """From what was saved."""
        features = card_of(encoder).num_features
        head = load_head(lambda: ValueHead(nn.Linear(features, 1)), state)
        check_number("scale", head.scale.item(), lambda value: value > 0, "a number above 0")
        return Regressor(encoder, head, ValueCard.from_json(card))

    def grade(
        self, predictor: Predictor, source: Source, positions: np.ndarray, device: torch.device | str
    ) -> dict[str, Any]:
        """r2, mae, pearson, each with NAME_low and NAME_high (95 % interval), rmse, and n; NaN if undefined.

        mae and rmse are in the unit of the values. Intervals are over groups, where the source has some.
        """
        predicted = _predicted(cast(Regressor, predictor).to(device), source, positions)
        return _flat(_graded(source, positions, predicted))

    def check_out(self, asked: Asked) -> None:
        """A .csv or .parquet file."""
        check_table(asked)

    def write(
        self, predictor: Predictor, source: Source, asked: Asked, device: torch.device | str
    ) -> Predictions:
        """A table with a row per sample."""
        return write_values(cast(Regressor, predictor).to(device), source, asked)


def _known(source: Source) -> np.ndarray:
    """(N,) float64, NaN where there is no value."""
    return np.full(len(source), np.nan) if source.values is None else source.values


def _predicted(regressor: Regressor, source: Source, positions: np.ndarray) -> np.ndarray:
    """(n,) float32."""
    return extract(regressor.values, source, positions).reshape(-1)


def _graded(source: Source, positions: np.ndarray, predicted: np.ndarray) -> ValueGrades:
    groups = None if source.groups is None else source.groups[positions]
    return grade_values(_known(source)[positions], predicted, groups=groups)


def _flat(grades: ValueGrades) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("r2", "mae", "pearson"):
        estimate = getattr(grades, name)
        found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {**found, "rmse": grades.rmse, "n": grades.count}


TASK = Values()
