"""Draws that every kind of view makes, one row per sample."""

from __future__ import annotations

from torch import Tensor

from tacit.rng import Rng


def between(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Draws in [0, 1) moved to `bounds`, which are [low, high) but for rounding."""
    return uniform * (bounds[1] - bounds[0]) + bounds[0]


def chosen(index: Tensor, rng: Rng, probability: float) -> Tensor | None:
    """(B,) bool, each true with `probability`; None if that is 0, so that the work can be left out.

    index: (B,) int64 sample numbers; a choice depends on its own number only.
    """
    return rng.uniform(index, 1)[:, 0] < probability if probability else None
