"""Gathering rows across processes, with gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from tacit.errors import UsageError


def rank_and_world() -> tuple[int, int]:
    """Number of this process and of all processes; (0, 1) where torch.distributed is not in use."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(x: Tensor) -> Tensor:
    """The rows of all processes: (N, ...) on each of W becomes (W N, ...) on all, in the order of ranks.

    The gradient of a row is the sum of what all processes' losses send back to it. So if each process
    takes the mean over its own anchors, gradients averaged over processes (as DDP does) are those of
    one process with the whole batch. Without torch.distributed, or with one process, `x` itself.

    Every process must call it, and must run backward if one does: both are collective. Once
    differentiable.

    Raises:
        UsageError: the processes hold different numbers of rows. (The numbers travel in a collective
            of their own, 8 bytes a process: a gather of unequal parts would hang or corrupt memory.)
    """
    _, world = rank_and_world()
    if world == 1:
        return x
    _check_equal(x, world)
    return _Gather.apply(x)


# by their names since torch 2.14, which warns at the old ones; the arguments are the same
_BEFORE = {"all_gather_single": "all_gather_into_tensor", "reduce_scatter_single": "reduce_scatter_tensor"}


def _collective(name: str) -> Callable[[Tensor, Tensor], object]:
    """`dist.NAME(output, input)`, also in a torch that calls it otherwise."""
    return getattr(dist, name if hasattr(dist, name) else _BEFORE[name])


def _check_equal(x: Tensor, world: int) -> None:
    rows = torch.empty(world, dtype=torch.int64, device=x.device)
    _collective("all_gather_single")(rows, torch.tensor([len(x)], device=x.device))
    counts = rows.tolist()
    if len(set(counts)) > 1:
        raise UsageError(
            f"gather: the processes hold {', '.join(map(str, counts))} rows; give each the same number "
            "(drop_last=True in the loader), or compare within each process (distributed=False)"
        )


class _Gather(torch.autograd.Function):
    """Forward all-gather, backward reduce-scatter.

    Written by hand because what torch has is no stable ground: `torch.distributed.nn.functional.all_gather`
    is deprecated (it warns on every call in torch 2.15; with gloo its backward sends one scatter per
    rank), and what replaces it lives in a private module under names that changed since torch 2.6.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        _, world = rank_and_world()
        out = x.new_empty((world * len(x), *x.shape[1:]))
        _collective("all_gather_single")(out, x.contiguous())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        mine = grad.new_empty((ctx.rows, *grad.shape[1:]))
        _collective("reduce_scatter_single")(mine, grad.contiguous())
        return mine
