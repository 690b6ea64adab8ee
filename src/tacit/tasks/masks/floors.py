"""What the same masks give without learning: every sample gets their mean."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.data.source import Source
from tacit.tasks.masks.grading import dice_score, mean_of_known
from tacit.tasks.masks.segmenter import canvas_of

BACKGROUND, MEAN = "background only", "mean mask"
MOST = 50
"""Masks that are averaged, at most."""
_STRETCH = {1: "linear", 2: "bilinear", 3: "trilinear"}


def mask_floors(
    source: Source, learned: np.ndarray, test: np.ndarray, encoder: nn.Module
) -> dict[str, float]:
    """Mean Dice over samples and foreground classes, by name, of two answers that look at no intensity.

    "background only": nothing is found. "mean mask": the class that the masks at `learned`, stretched to the
    sample's shape, have most often at each place. Masks at `test` are only compared with.
    """
    classes = len(source.spec.classes)
    masks = [torch.from_numpy(canvas_of(encoder, source, i).mask()) for i in learned[:MOST].tolist()]
    found: dict[str, list[float]] = {BACKGROUND: [], MEAN: []}
    for i in test.tolist():
        true = canvas_of(encoder, source, i).mask()
        answers = {BACKGROUND: np.zeros_like(true), MEAN: mean_mask(masks, true.shape, classes).numpy()}
        for name, answer in answers.items():
            found[name] += [dice_score(answer == c, true == c) for c in range(1, classes)]
    scores = {name: mean_of_known(values) for name, values in found.items()}
    return {name: score for name, score in scores.items() if not np.isnan(score)}


def mean_mask(masks: list[Tensor], shape: tuple[int, ...], classes: int) -> Tensor:
    """(*space) int64: the most probable class of each place, over masks stretched to this shape."""
    total = torch.zeros(classes, *shape)
    for mask in masks:
        one_hot = F.one_hot(mask, classes).movedim(-1, 0).float()[None]
        total += F.interpolate(one_hot, size=shape, mode=_STRETCH[len(shape)], align_corners=False)[0]
    return total.argmax(0)
