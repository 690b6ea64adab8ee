"""What a run needs of the machine, memory and disk, and which option makes it fit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from tacit.encoders.card import card_of
from tacit.errors import TacitError
from tacit.memory import machine_memory
from tacit.methods.base import Method
from tacit.training.loader import Plan

_TIGHT = 0.9  # of the memory there is; beyond it a larger batch of the probe, or a neighbour, ends the run
_GIB = 2**30


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on a CUDA device by tensors, else by this process; 0 if not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # absent on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_is_tight(device: torch.device) -> bool:
    """Whether more than nine tenths of the memory are in use; False where that is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) > _TIGHT * torch.cuda.mem_get_info(device)[1]
    return any(used > _TIGHT * total for used, total in machine_memory())


def options_that_save_memory(method: Method, plan: Plan, device: torch.device, *, full: bool) -> str:
    """The options that make a run smaller, the one that changes least first.

    full: whether it computes in 32 bits.
    """
    options = []
    parts = plan.accumulate * 2
    each, rest = divmod(plan.batch_size, parts * plan.processes)
    if method.accumulates and not rest and each >= 2:
        options.append(f"--accumulate {parts} (the batch stays {plan.batch_size})")
    if full and device.type == "cuda":
        options.append("--precision bf16")
    if (half := plan.batch_size // 2) >= 2 * plan.accumulate * plan.processes:
        options.append(f"--batch-size {half}")
    if lighter := card_of(method.encoder).form.lighter:
        options.append(lighter)
    return " or ".join(options) or "a smaller --encoder"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a failed allocation: CUDA's, numpy's or Python's, or that of torch on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def explaining_memory(method: Method, plan: Plan, device: torch.device, *, full: bool) -> Iterator[None]:
    """Turns a failed allocation into one line with the option that would make the run fit.

    Raises:
        TacitError: the memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        each = plan.batch_size // (plan.accumulate * plan.processes)
        raise TacitError(
            f"out of memory on {device} with {each} samples at once: pass "
            f"{options_that_save_memory(method, plan, device, full=full)}"
        ) from error


def state_bytes(method: nn.Module) -> int:
    """Bytes of a checkpoint: parameters, buffers and one moving average per trained parameter.

    A lower bound: Adam keeps two averages, plain SGD none, which nobody uses here.
    """
    state = sum(value.nbytes for value in method.state_dict().values())
    return state + sum(p.nbytes for p in method.parameters() if p.requires_grad)


def check_disk(folder: Path, need: int) -> None:
    """Refuse to begin where not even the first checkpoint and its successor have room.

    need: bytes of one checkpoint. A checkpoint is replaced only when the next one is whole, so two
    must fit at once.

    Raises:
        TacitError: the disk is too full.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), None)
    if there is None:
        return
    disk = shutil.disk_usage(there)
    if disk.total and disk.free < 2 * need:  # some file systems, such as /proc, know no size
        raise TacitError(
            f"the disk of '{folder}' has {gib(disk.free)} free; a checkpoint takes {gib(need)} and two must "
            "fit: make room, or choose another --out"
        )


def gib(count: float) -> str:
    """Bytes as GiB, or MiB below a tenth of one."""
    return f"{count / _GIB:.1f} GiB" if count >= 0.1 * _GIB else f"{count / 2**20:.1f} MiB"
