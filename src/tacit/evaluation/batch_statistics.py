"""BatchNorm's running statistics: whether they fit what evaluation sees, and how they are estimated again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import sqrt
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from tacit.encoders.modes import keeping_modes

LEAST = 32
"""Pictures from which statistics are estimated again, at least (our choice: fewer know them worse than the
running mean of a whole run does)."""
_PART = 256
_FAR = 0.1
_DEVIATIONS = 2.0


class Modes(NamedTuple):
    """A score from 0 to 1 on the same labelled training pictures, by two kinds of statistics.

    evaluation: normalised by running statistics, as predictions are. training: by those of the batch itself.
    pictures: how many.
    """

    evaluation: float
    training: float
    pictures: int

    @property
    def apart(self) -> bool:
        """Whether evaluation lies far below: by ten points and more than two standard errors (our choice)."""
        below = self.training - self.evaluation
        error = sqrt(max(self.training * (1 - self.training), 0.05) / max(1, self.pictures))
        return below > max(_FAR, _DEVIATIONS * error)

    def __str__(self) -> str:
        return (
            f"{100 * self.evaluation:.1f} % in evaluation mode, {100 * self.training:.1f} % in training mode"
        )


def tracking_layers(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that have running statistics; empty for networks that normalise otherwise."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def by_batch(module: nn.Module) -> Iterator[None]:
    """Within the block BatchNorm normalises by the batch, as in training, and running statistics stand still.

    All other layers stay in the mode that they are in.
    """
    layers = tracking_layers(module)
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training, layer.track_running_stats = mode, True


def even_parts(positions: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The positions in random order, in parts of about 256: a part of one class has other statistics."""
    return np.array_split(rng.permutation(positions), max(1, -(-len(positions) // _PART)))


def estimate_again(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running statistics as means over these batches, by torch's `update_bn`; modes are kept.

    `update_bn` puts all layers into training mode; those that evaluation turns off, such as dropout, are put
    back into evaluation mode, because statistics are wanted of what evaluation sees.

    network: from a batch (B, C, *space) to anything. batches: of about equal size.
    """
    tracking = set(tracking_layers(network))

    def quiet(module: nn.Module, given: object) -> None:
        for layer in module.modules():
            layer.training = layer in tracking

    with keeping_modes(network):
        hook = network.register_forward_pre_hook(quiet)
        try:
            update_bn(batches, network)
        finally:
            hook.remove()


def settled(
    network: nn.Module, batches: Iterable[Tensor], before: Modes, measure: Callable[[], Modes | None]
) -> Modes:
    """Statistics estimated again, unless the score in evaluation mode falls: then they are as they were.

    network: its layers are those that are measured. Returns both modes as they are afterwards.
    """
    kept = [buffer.clone() for buffer in network.buffers()]
    estimate_again(network, batches)
    after = measure()
    if after is None or after.evaluation < before.evaluation:
        for buffer, value in zip(network.buffers(), kept, strict=True):
            buffer.copy_(value)
        return before
    return after
