"""Heads that go on an encoder while it learns and are thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from tacit.errors import UsageError


def mlp(
    widths: Sequence[int], *, norm: bool = True, last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Linear - BatchNorm - ReLU per layer; the last layer is Linear, with BatchNorm if `last_norm`.

    widths: input, hidden ..., output. Hidden layers have a bias only where no BatchNorm follows.

    Written here because torchvision's `MLP` puts no normalisation on its last layer and always a
    bias before one.
    """
    if min(widths) < 1:
        raise UsageError(f"a head's layers need at least 1 unit, not {min(widths)}")
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = last_norm if last else norm
        layers.append(nn.Linear(before, after, bias=last_bias if last and not normed else not normed))
        if normed:
            layers.append(nn.BatchNorm1d(after))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
