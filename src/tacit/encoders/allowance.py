"""A limit on what building a network may allocate: about as much as the file of its weights holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tacit.memory import free_memory

_MARGIN = 256 * 2**20  # bytes for what is not weights: tables of positions, MONAI's trial pass
_TIMES = 4  # weights of 2 bytes are built with 4, and initialised with a copy
_TENSORS = 4  # times those in the file, and a thousand: 13 architectures created 0.8 to 1.3 times as many
_FREE = 0.8  # of the memory there is


class Allowance(TorchDispatchMode):
    """Within it, creating tensors of more than so many bytes, or so many tensors, is refused beforehand.

    What an operation derives from tensors is counted after it ran; what creates a tensor of a given shape, as
    all constructors of layers do, before.
    """

    def __init__(self, size: int, tensors: int) -> None:
        """size: bytes of the file of weights. tensors: how many are in it."""
        super().__init__()
        free = free_memory()
        wanted = _TIMES * size + _MARGIN
        self.limit = wanted if free is None else min(wanted, int(_FREE * free))
        self.tight = self.limit < wanted
        self.tensors = _TENSORS * tensors + 1000
        self.taken = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, run, and count what could not be known before."""
        named = dict(kwargs or {})
        if not any(map(_has_tensor, (*args, *named.values()))):
            self._take(0 if "scalar_tensor" in func.__name__ else _declared(args, named))
            return func(*args, **named)
        found = func(*args, **named)
        if isinstance(found, Tensor) and found.untyped_storage().nbytes() > self.limit:
            raise self._refused()
        return found

    def _take(self, size: int) -> None:
        self.taken += size
        self.tensors -= 1
        if self.taken > self.limit or self.tensors < 0:
            raise self._refused()

    def _refused(self) -> ValueError:
        than = "the free memory" if self.tight else "its weights"
        return ValueError(f"it describes a network that is larger than {than}")


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(_has_tensor, value)))


def _declared(args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Bytes of the tensor that a call creates, by the first shape or the largest number it is given."""
    dtype = named.get("dtype") or torch.get_default_dtype()
    shape = next((value for value in args if isinstance(value, list | tuple)), named.get("size"))
    if shape is None:  # arange(start, end), linspace(start, end, steps), eye(n), randperm(n)
        shape = [max((abs(int(value)) for value in args if isinstance(value, int)), default=1)]
    return prod(int(side) for side in shape) * dtype.itemsize
