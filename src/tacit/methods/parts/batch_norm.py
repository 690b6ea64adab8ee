"""Passes that leave BatchNorm's running statistics as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def still_statistics(module: nn.Module, still: bool) -> Iterator[None]:
    """Within the block BatchNorm normalises as before but its running statistics do not move."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    layers = layers if still and module.training else []
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
