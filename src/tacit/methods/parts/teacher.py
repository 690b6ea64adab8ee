"""Averaged networks: frozen copies that follow a trained one as an exponential moving average."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tacit.batch import Step

HORIZON = 0.05
"""Share of a run's steps that an average reaches back at most (our choice, on validation parts of CIFAR-10,
solar cells and MNIST at 150 and 600 steps: 1 to 10 % are within a point of each other, while 0.999, which
spans 1,000 steps, falls 4 to 40 points behind the trained network)."""


def momentum_at(step: Step, largest: float, *, first: int = 2) -> float:
    """min(1 - 1 / (t + first), largest, 1 - 1 / (HORIZON T)) at step t = 0, 1, ... of T.

    The warm-up is Mean Teacher's (Tarvainen and Valpola, 2017). The last bound is ours, because published
    decays belong to published lengths: in runs of 20,000 steps and more it leaves 0.999 as it is.
    """
    return min(1 - 1 / (step.index + first), largest, 1 - 1 / max(1.0, HORIZON * step.total))


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


@torch.no_grad()
def follow_buffers(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """The same for buffers, of a teacher whose own batches move no statistics; counters are copied.

    Statistics that are copied while the weights are averaged belong to other weights: near chance in short
    runs.
    """
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - momentum)
        else:
            mine.copy_(theirs)
