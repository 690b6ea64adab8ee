"""Training and evaluation mode of a network's layers, set for a block and put back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def keeping_modes(*modules: nn.Module) -> Iterator[None]:
    """After the block every layer is in training or evaluation mode as it was, also where they differ."""
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within the block all layers are in evaluation mode; after it, each as it was."""
    with keeping_modes(*modules):
        for module in modules:
            module.eval()
        yield


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
