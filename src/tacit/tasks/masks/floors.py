"""What the same masks give without learning: every sample gets their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
FINEST = 128
"""Places along each axis that masks are averaged at, at most."""
_SHRINK: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
_STRETCH = {1: "linear", 2: "bilinear", 3: "trilinear"}


def mask_floors(
    source: Source, learned: np.ndarray, test: np.ndarray, encoder: nn.Module
) -> dict[str, float]:
    """Mean Dice over samples and foreground classes, by name, of two answers that look at no intensity.

    "background only": nothing is found. "mean mask": the class that the masks at `learned`, brought to one
    grid (`grid_of`), have most often at each place, stretched to the sample's shape. Masks at `test` are only
    compared with.
    """
    classes = len(source.spec.classes)
    canvases = [canvas_of(encoder, source, i) for i in learned[:MOST].tolist()]
    votes = torch.zeros(classes, *grid_of([canvas.shape for canvas in canvases]))
    for canvas in canvases:
        vote(votes, torch.from_numpy(canvas.mask()))
    found: dict[str, list[float]] = {BACKGROUND: [], MEAN: []}
    for i in test.tolist():
        true = canvas_of(encoder, source, i).mask()
        answers = {BACKGROUND: np.zeros_like(true), MEAN: most_voted(votes, true.shape).numpy()}
        for name, answer in answers.items():
            found[name] += [dice_score(answer == c, true == c) for c in range(1, classes)]
    scores = {name: mean_of_known(values) for name, values in found.items()}
    return {name: score for name, score in scores.items() if not np.isnan(score)}


def grid_of(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The largest side along each axis, at most `FINEST`."""
    return tuple(min(max(sides), FINEST) for sides in zip(*shapes, strict=True))


def vote(votes: Tensor, mask: Tensor) -> None:
    """Add 1 to the class that a mask, (*space) int64 of any shape, has at each place of (classes, *grid).

    A mask with more places than the grid has adds fractions, by area.
    """
    grid = votes.shape[1:]
    for c in torch.bincount(mask.flatten()).nonzero().flatten().tolist():
        part = (mask == c).float()[None, None]
        if (sides := tuple(map(min, mask.shape, grid))) != tuple(mask.shape):
            part = _SHRINK[len(grid)](part, sides)
        votes[c] += _stretched(part, grid)


def most_voted(votes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(*space) int64: the class with most votes at each place of this shape, the first of several."""
    answer = torch.zeros(shape, dtype=torch.int64)
    most = _stretched(votes[None, :1], shape)
    for c in range(1, len(votes)):
        if votes[c].any():
            those = _stretched(votes[None, c : c + 1], shape)
            answer[those > most] = c
            most = torch.maximum(most, those)
    return answer


def _stretched(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(*shape), linearly, of (1, 1, *space)."""
    return F.interpolate(part, size=shape, mode=_STRETCH[len(shape)], align_corners=False)[0, 0]
