"""Teachers: frozen copies that follow a student as an exponential moving average."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy with the same weights that gets no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, over all parameters.

    Buffers (BatchNorm statistics) stay the teacher's own: it sees batches of its own.
    """
    follower = get_ema_multi_avg_fn(momentum)
    follower(list(teacher.parameters()), list(student.parameters()), 0)
