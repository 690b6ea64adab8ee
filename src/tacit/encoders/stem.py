"""Stems for small images: a network made for 224 pixels throws a 32-pixel image away in its first layers."""

from __future__ import annotations

import torch
from torch import nn

from tacit.errors import UsageError

SMALL = 64  # pixels; at 64 a 7x7 stride-2 stem with pooling leaves 16x16, at 32 only 8x8


def has_small_form(model: nn.Module) -> bool:
    """Whether `make_small_input` knows this kind of model: a ResNet-like stem of conv1 and maxpool."""
    return isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool")


def make_small_input(model: nn.Module) -> nn.Module:
    """Replace a ResNet stem by a 3x3 stride-1 convolution and no pooling (SimCLR's CIFAR form).

    Weights, if any were learned, keep the centre of the old kernel (our choice, because it is the
    part that a 3x3 window of the old response was made of).

    Raises:
        UsageError: the model has no such stem; some that have are named.
    """
    if not has_small_form(model):
        raise UsageError(
            f"small_input: {type(model).__name__} has no small-image stem; resnet18, resnet50, "
            "wide_resnet50_2, resnext50_32x4d and seresnet50 have one, and a vit takes "
            "'?img_size=32&patch_size=4' in its spec instead"
        )
    old = model.conv1
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
    top, left = (old.kernel_size[0] - 3) // 2, (old.kernel_size[1] - 3) // 2
    with torch.no_grad():
        new.weight.copy_(old.weight[:, :, top : top + 3, left : left + 3])
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    model.conv1 = new
    model.maxpool = nn.Identity()
    return model
