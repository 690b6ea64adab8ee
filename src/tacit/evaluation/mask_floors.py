"""What the same masks give without learning: every volume gets their mean."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.data.source import Source
from tacit.data.volume.volumes import volumes_of
from tacit.evaluation.segmentation import dice_score, mean_of_known

BACKGROUND, MEAN = "background only", "mean mask"
MOST = 50
"""Masks that are averaged, at most."""


def mask_floors(source: Source, learned: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Mean Dice over volumes and foreground classes, by name, of two answers that look at no intensity.

    "mean mask": the class that the masks at `learned`, stretched to the volume's shape, have most often at
    each place. Masks at `test` are only compared with.
    """
    whole, classes = volumes_of(source), len(source.spec.classes)
    learned = learned[:MOST]
    masks = [whole.volume(i).read_mask((0, 0, 0), whole.volume(i).shape) for i in learned.tolist()]
    found: dict[str, list[float]] = {BACKGROUND: [], MEAN: []}
    for i in test.tolist():
        volume = whole.volume(i)
        true = volume.read_mask((0, 0, 0), volume.shape).numpy()
        answers = {BACKGROUND: np.zeros_like(true), MEAN: mean_mask(masks, true.shape, classes).numpy()}
        for name, answer in answers.items():
            found[name] += [dice_score(answer == c, true == c) for c in range(1, classes)]
    scores = {name: mean_of_known(values) for name, values in found.items()}
    return {name: score for name, score in scores.items() if not np.isnan(score)}


def mean_mask(masks: list[Tensor], shape: tuple[int, ...], classes: int) -> Tensor:
    """(X, Y, Z) int64: the most probable class of each voxel, over masks stretched to this shape."""
    total = torch.zeros(classes, *shape)
    for mask in masks:
        one_hot = F.one_hot(mask, classes).movedim(-1, 0).float()[None]
        total += F.interpolate(one_hot, size=shape, mode="trilinear", align_corners=False)[0]
    return total.argmax(0)
