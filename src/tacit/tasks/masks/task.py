"""Labels that are masks: a class for each voxel or pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from tacit.data.budget import HELD_OUT, Budget, draw_masks
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.pyramid import pyramid_of
from tacit.errors import UsageError
from tacit.files import without_nan
from tacit.rng import Rng
from tacit.tasks.base import Asked, Labels, Network, Predictions, Task, Taught
from tacit.tasks.masks.floors import mask_floors
from tacit.tasks.masks.grading import grade_masks, mean_of_known
from tacit.tasks.masks.online import MaskProbe
from tacit.tasks.masks.predict import check_folder, write_masks
from tacit.tasks.masks.segmenter import (
    MaskCard,
    Segmenter,
    predicted_pairs,
    predictor_of,
)
from tacit.tasks.predictor import Predictor, load_head

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}  # by the number of axes of their weights
_AXES = {"image": 4, "volume": 5}  # of the weights, by kind of data; of another kind, as they were saved


class Masks(Task):
    """A class for each voxel or pixel; graded by Dice."""

    target: ClassVar[str] = "mask"
    plural: ClassVar[str] = "masks"
    score: ClassVar[str] = "dice"
    measures: ClassVar[Mapping[str, str]] = {"dice": "Dice in %", "hd95": "HD95", "asd": "ASD"}
    amount: ClassVar[str] = "labelled"
    counted: ClassVar[str] = "masks"
    words: ClassVar[tuple[str, ...]] = ("masks", "overlap")
    written: ClassVar[str] = "FOLDER"
    dense: ClassVar[bool] = True
    rivals: ClassVar[tuple[str, ...]] = ("mean-teacher-segmentation", "cps")
    budgets: ClassVar[tuple[int, ...]] = (2, 4, 8)
    batch_size: ClassVar[int] = 4
    mu: ClassVar[float] = 1.0

    def check(self, source: Source, slug: str) -> None:
        """There must be masks."""
        if source.spec.target != "mask":
            kind = source.spec.modality
            raise UsageError(
                f"{slug} learns masks, and the data have none: put them beside the {kind}s (labels/ beside "
                "images/, or NAME_seg beside NAME), or name their folder with --masks"
            )

    def draw(
        self, source: Source, train: np.ndarray, labels: Labels, rng: Rng, validation: np.ndarray | None
    ) -> Budget:
        """So many masks, whatever they show."""
        return draw_masks(
            source.labels,
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
        return {"masks": len(positions)}

    def watch(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        method: Taught,
        *,
        learned: np.ndarray,
        held_out: np.ndarray,
    ) -> MaskProbe:
        """Dice of held-out samples, and both modes of BatchNorm."""
        return MaskProbe(source, train, rng, held_out, method, learned)

    def floors(
        self,
        source: Source,
        learned: np.ndarray,
        test: np.ndarray,
        encoder: nn.Module,
        device: torch.device | str,
    ) -> dict[str, dict[str, Any]]:
        """Nothing but background, and the mean mask."""
        found = mask_floors(source, learned, test, encoder)
        return {name: {self.score: dice} for name, dice in found.items()}

    def calibrate(self, network: Network, source: Source, held_out: np.ndarray) -> Segmenter:
        """Graded on the held-out samples; probabilities stay as they are."""
        card = MaskCard(classes=source.spec.classes)
        if len(held_out):
            device = next(network.head.parameters()).device
            predict = predictor_of(network)
            pairs = predicted_pairs(predict, network.encoder, source, held_out, device)
            card.held_out = len(held_out)
            card.grades = without_nan(asdict(grade_masks(pairs, source.spec.classes)))
        return Segmenter(network.encoder, network.head, card)

    def restore(self, encoder: nn.Module, card: Mapping[str, Any], state: Mapping[str, Tensor]) -> Segmenter:
        """From what was saved."""
        known = MaskCard.from_json(card)
        channels = pyramid_of(encoder).pyramid_features[-1]
        axes = _AXES.get(card_of(encoder).form.modality) or state["weight"].ndim
        make = _CONVOLUTIONS.get(axes, nn.Conv2d)  # weights of other numbers of axes fit none
        head = load_head(lambda: make(channels, len(known.classes), 1), state)
        return Segmenter(encoder, head, known)

    def grade(
        self, predictor: Predictor, source: Source, positions: np.ndarray, device: torch.device | str
    ) -> dict[str, Any]:
        """Means over classes of dice, jaccard, hd95 and asd (mm where known), and what they are made of.

        dice_classes: by name. dice_cases: per sample, mean over classes. not_found: masks of a class that is
        there and was not found.
        """
        segmenter = cast(Segmenter, predictor).to(device)
        pairs = predicted_pairs(segmenter.predict, segmenter.encoder, source, positions, device)
        grades = grade_masks(pairs, segmenter.card.classes)
        return {
            **{name: grades.mean(name) for name in ("dice", "jaccard", "hd95", "asd")},
            "dice_classes": dict(zip(grades.classes, grades.dice, strict=True)),
            "dice_cases": [mean_of_known(each.dice for each in case) for case in grades.cases],
            "not_found": sum(each.prediction for each in grades.empty),
        }

    def check_out(self, asked: Asked) -> None:
        """A folder."""
        check_folder(asked)

    def write(
        self, predictor: Predictor, source: Source, asked: Asked, device: torch.device | str
    ) -> Predictions:
        """A mask for each sample, and a table."""
        return write_masks(cast(Segmenter, predictor).to(device), source, asked)


TASK = Masks()
