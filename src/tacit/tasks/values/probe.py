"""What frozen features know of values: ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from tacit.data.source import Source
from tacit.data.value_budget import value_split
from tacit.errors import UsageError
from tacit.evaluation.ridge import PENALTIES, sweep_ridge
from tacit.rng import Rng
from tacit.tasks.probing import FRACTIONS, Named, ProbeReport, Probing, Split, features_of, own_parts
from tacit.tasks.values.grading import Estimate, grade_values

_FEWEST = 10  # values: 60/20/20 of fewer leave less than two to test on


@dataclass(frozen=True, slots=True)
class ValueResult:
    """How one representation did on the test part, each measure with its 95 % bootstrap interval.

    mae, rmse: in the unit of the values. penalty: of the ridge regression, chosen on validation.
    """

    representation: str
    features: int
    r2: Estimate
    mae: Estimate
    pearson: Estimate
    rmse: float
    penalty: float


class ValueReport(ProbeReport):
    """A report whose results are `ValueResult`s."""

    def __str__(self) -> str:
        p = self.protocol
        groups = "" if p["groups"] is None else f" of {p['groups']['test']} groups"
        return (
            f"{table(self.results)}\n"
            f"on the test part [95 % interval], MAE in the unit of the values; {p['train']} train, "
            f"{p['validation']} validation, {p['test']} test samples{groups}\n"
            f"split: {p['split']}" + "".join(f"\n{line}" for line in self.warnings)
        )

    def worse(self, learned: ValueResult, other: ValueResult) -> list[str]:
        """R2, which orders representations as the squared error does."""
        own, theirs = learned.r2.value, other.r2.value
        return [f"R2 {theirs:.3f} against {own:.3f}"] if theirs > own else []


def table(results: Sequence[ValueResult]) -> str:
    """One line per representation: R2, MAE and Pearson's correlation, with their 95 % intervals."""
    rows = [f"{'':16}{'R2':>26}{'MAE':>30}{'Pearson r':>26}"]
    for result in results:
        mae = "{:.4g} [{:.4g}, {:.4g}]".format(*_numbers(result.mae))
        r2, pearson = ("{:.3f} [{:.3f}, {:.3f}]".format(*_numbers(e)) for e in (result.r2, result.pearson))
        rows.append(f"{result.representation:16}{r2:>26}{mae:>30}{pearson:>26}")
    return "\n".join(rows)


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def measure(
    named: Named, source: Source, split: Split, *, k: int = 20, batch_size: int = 256
) -> list[ValueResult]:
    """Ridge regression on several representations on the same split.

    The penalty with the smallest squared error on validation is taken, and fitted on train and validation
    together. Intervals are over groups, where the source has some. k is not used.
    """
    if source.values is None:
        raise ValueError("the source has no values")
    values = {part: source.values[at] for part, at in split.items()}
    groups = None if source.groups is None else source.groups[split["test"]]
    results = []
    for name, parts in features_of(named, source, split, batch_size):
        train, validation = ((parts[p], values[p]) for p in ("train", "validation"))
        sweep = sweep_ridge(train, validation)
        predicted = sweep.regressor.predict(parts["test"])
        g = grade_values(values["test"], predicted, groups=groups)
        count = parts["test"].shape[1]
        results.append(ValueResult(name, count, g.r2, g.mae, g.pearson, g.rmse, sweep.penalty))
    return results


def probe_split(source: Source, seed: int) -> tuple[Split, str]:
    """Positions of train, validation and test samples with values, and in words where they come from.

    The data's own parts are used where there are train and test. What is split here is split alike over
    small and large values, and no group is on two sides.

    Raises:
        UsageError: too few values, or groups; or the same value everywhere in a part.
    """
    rng = Rng.of(seed)("probe split")
    own = own_parts(source)
    whole = "" if source.groups is None else "whole groups, "
    if "train" in own and "test" in own and "val" in own:
        split, how = {"train": own["train"], "validation": own["val"], "test": own["test"]}, "the data's own"
    elif "train" in own and "test" in own:
        train, validation = _spread(source, own["train"], (0.8, 0.2), rng)
        split = {"train": train, "validation": validation, "test": own["test"]}
        how = f"the data's own test part, 80/20 validation over quantiles, {whole}seed {seed}"
    else:
        train, validation, test = _spread(source, source.labelled, FRACTIONS, rng)
        split = {"train": train, "validation": validation, "test": test}
        how = f"60/20/20 over quantiles, {whole}seed {seed}"
    _check(source, split)
    return split, how


def _spread(
    source: Source, index: np.ndarray, fractions: tuple[float, ...], rng: Rng
) -> tuple[np.ndarray, ...]:
    """Parts of these positions that have small and large values alike."""
    if source.values is None or len(index) < _FEWEST:
        raise UsageError(
            f"the data have {len(index)} value(s) to split, and a probe needs {_FEWEST}: label more samples"
        )
    return value_split(source.values, index, source.groups, fractions, rng)


def _check(source: Source, split: Split) -> None:
    for name, part in split.items():
        values = np.empty(0) if source.values is None else source.values[part]
        least = 1 if name == "validation" else 2
        if len(part) < least:
            what = "samples" if source.groups is None else "groups"
            raise UsageError(
                f"the {name} part has {len(part)} value(s), and a probe needs {least}: label more {what}"
            )
        if least > 1 and np.ptp(values) == 0:
            raise UsageError(
                f"all {len(part)} values of the {name} part are {values[0]:g}, so there is nothing to probe: "
                "name another --column"
            )


def _labels(source: Source) -> dict[str, Any]:
    """Enough of the values to tell two columns apart."""
    known = source.labelled
    values = np.empty(0) if source.values is None else source.values[known]
    digest = blake2b(known.tobytes() + values.tobytes(), digest_size=8).hexdigest()
    return {
        "values": {
            "count": len(values),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "digest": digest,
        },
    }


def _how(k: int) -> dict[str, Any]:
    return {
        "ridge": {
            "penalties": list(PENALTIES),
            "chosen_on": "validation squared error, the strongest of equals",
            "then_fitted_on": "train and validation",
        }
    }


PROBING = Probing(
    name="frozen features, ridge probe of values, version 1",
    split=probe_split,
    measure=measure,
    labels=_labels,
    how=_how,
    report=ValueReport,
)
