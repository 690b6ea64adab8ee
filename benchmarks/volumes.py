"""Methods for volumes: a step over its own passes, and memory by the number of volumes.

    python benchmarks/volumes.py [--quick]

Steps are timed inside `tacit.fit` as in `step.py`; the passes are those of the method's networks on ready
patches, with gradient and without, forward and (with a gradient of ones) backward, as often as the method
makes them (`PASSES`). The network is the V-Net of the left-atrium papers, patches are 32 x 32 x 32, two
labelled and two unlabelled; two threads. Besides, a step reads patches from the disk, makes views, losses and
the optimiser's step, and writes its row.

Memory is that of `tacit.fit tracoco` on 10 and on 200 synthetic volumes of 64 x 64 x 64 voxels with the same
number of steps, each in a process of its own; see `memory.py` for what is counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tacit
from memory import watch
from race import machine, save
from step import WARM_UP, clocked
from tacit.encoders.vnet import VNet

PATCH, BATCH, THREADS, WANTED = (32, 32, 32), 2, 2, 1.1
PASSES: dict[str, tuple[list[int], list[int]]] = {
    "supervised-segmentation": ([2], []),
    "mean-teacher-segmentation": ([4], [2]),
    "ua-mt": ([4], [2] * 9),
    "cps": ([4, 4], []),
    "urpc": ([4], []),
    "tracoco": ([4] * 6, [4, 4]),
}
"""Patches of each pass with gradient, and without."""
_FIT = """
import sys, tacit
_, data, epochs, out, cache = sys.argv
tacit.fit("tracoco", data, encoder="tacit/unet3d?width=4&depth=3", patch=(16, 16, 16), labelled=4,
held_out=0.0,
          epochs=int(epochs), batch_size=2, out=out, cache=cache, device="cpu", workers=0, quiet=True)
"""


def make_volumes(folder: Path, count: int, side: int) -> Path:
    """So many volumes of noise with a ball in each, and their masks."""
    import nibabel

    draw = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(side) - side / 2] * 3, indexing="ij")
    mask = (sum(axis**2 for axis in axes) < (side / 4) ** 2).astype(np.uint8)
    for i in range(count):
        voxels = (draw.normal(0, 20, mask.shape) + 100 * mask).astype(np.int16)
        for kind, array in (("images", voxels), ("labels", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / kind / f"case{i:03}.nii")
    return folder


def whole_steps(method: str, data: Path, steps: int) -> list[float]:
    """Seconds of each step of one run after the first ones."""
    with tempfile.TemporaryDirectory() as folder, clocked() as ends:
        tacit.fit(
            method,
            data,
            encoder="tacit/vnet",
            patch=PATCH,
            batch_size=BATCH,
            epochs=1,
            held_out=0.0,
            out=Path(folder) / "run",
            cache=str(data.parent / "cache"),
            device="cpu",
            quiet=True,
        )
    return np.diff(ends[WARM_UP : WARM_UP + steps]).tolist()


def passes_alone(method: str, steps: int) -> list[float]:
    """Seconds of each step's passes."""
    learning, looking = PASSES[method]
    network = nn.Sequential(Finest(VNet()), nn.Conv3d(16, 2, 1)).train()
    patches = torch.randn(4, 1, *PATCH, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(WARM_UP + steps):
        network.zero_grad()
        start = time.perf_counter()
        with torch.no_grad():
            for count in looking:
                network(patches[:count])
        torch.stack([network(patches[:count]).sum() for count in learning]).sum().backward()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


class Finest(nn.Module):
    """The last map of an encoder's pyramid."""

    def __init__(self, encoder: VNet) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, X, Y, Z) -> (B, 16, X, Y, Z)."""
        return self.encoder.forward_pyramid(x)[-1]


def step_row(method: str, data: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Median seconds of both, and their ratio; runs and passes take turns."""
    whole, alone = [], []
    for _ in range(rounds):
        whole += whole_steps(method, data, steps)
        alone += passes_alone(method, steps)
    times = statistics.median(whole), statistics.median(alone)
    ratio = times[0] / times[1]
    return {
        "method": method,
        "step_s": times[0],
        "passes_s": times[1],
        "ratio": ratio,
        "wanted": WANTED,
        "reached": ratio <= WANTED,
    }


def memory_row(count: int, steps: int) -> dict[str, Any]:
    """Peak memory of one run on so many volumes; they are decoded beforehand."""
    with tempfile.TemporaryDirectory() as place:
        data = make_volumes(Path(place, "volumes"), count, 64)
        cache, out = Path(place, "cache"), Path(place, "run")
        tacit.open_source(data, cache=str(cache), progress=False)
        environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", _FIT, *map(str, (data, 2 * steps // count, out, cache))]
        return {"volumes": count, **watch(subprocess.Popen(words, env=environment))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    quick = parser.parse_args().quick
    torch.set_num_threads(THREADS)
    description = machine()
    steps, rounds = (3, 1) if quick else (6, 2)
    with tempfile.TemporaryDirectory() as folder:
        data = make_volumes(Path(folder, "volumes"), 2 * (WARM_UP + steps + 1), 64)
        rows = [step_row(method, data, steps, rounds) for method in PASSES]
    few, many = (memory_row(count, 100) for count in (10, 200))
    rows += [few, many | {f"{name}_ratio": many[name] / few[name] for name in ("peak", "own")}]
    save("volumes", description, rows)


if __name__ == "__main__":
    main()
