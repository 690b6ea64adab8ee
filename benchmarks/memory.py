"""Peak memory of `tacit.fit` on 10,000 and on 1,000,000 images, with the same number of steps.

    python benchmarks/memory.py [--quick] [--folder EMPTY_FOLDER]

Both sets are folders of empty files in ten class folders; their stores are written by the library's own
builder, with synthetic pixels (1 x 8 x 8) in place of the decoding. The runs then open them as any
folder, from the public `fit`, each in a process of its own: one epoch of 1,000,000 and 100 epochs of
10,000, so both take 1,000 steps of 1,000 images, and both with the online probe (--quick: 100,000
images, 100 steps).

A process's memory, in MiB: `peak` is all of it (the system's VmHWM, which counts every page of a mapped
file that was looked at, shared libraries too); `own` is the anonymous part (largest of a sample each
few ms), which is what it takes from others; `mapped` the part that is pages of files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from index import make_tree
from race import machine, save
from tacit.data.image.decoding import Decoded, Form, Header
from tacit.data.image.listing import Listing
from tacit.data.open import open_source

_CLASSES = 10
_SIDE = 8
_BATCH = 1000
_SETTLED = 3.0  # seconds: a folder that changed in the last two is not trusted
_EVERY = 0.005  # seconds between two looks at the process
_FIT = """
import sys, tacit
_, data, epochs, batch, out, cache = sys.argv
tacit.fit("simclr", data, encoder="tacit/convnet?width=8", epochs=int(epochs), batch_size=int(batch),
          out=out, cache=cache, device="cpu", workers=0, quiet=True)
"""


def build(root: Path, cache: Path) -> None:
    """The store of a tree of empty files, as the library writes it, with pixels that are a function of i."""
    noise = np.random.default_rng(0).integers(0, 256, (4099, 1, _SIDE, _SIDE), np.uint8)

    def decode(listing: Listing, i: int, form: Form) -> Decoded:
        return Decoded(noise[i % len(noise)], (_SIDE, _SIDE), i.to_bytes(16, "little"))

    Listing.decode = decode
    Listing.header = lambda *_: Header(_SIDE, _SIDE, 1, False)
    Listing.white_from = lambda *_: ()
    open_source(root, cache=cache, progress=False)


def watch(process: subprocess.Popen) -> dict[str, float]:
    """Largest memory of a process until it ends, MiB."""
    peaks = {"peak": 0.0, "own": 0.0, "mapped": 0.0}
    fields = {"VmHWM:": "peak", "RssAnon:": "own", "RssFile:": "mapped"}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            if name := fields.get(line.split(None, 1)[0]):
                peaks[name] = max(peaks[name], int(line.split()[1]) / 1024)
        time.sleep(_EVERY)
    if process.wait():
        raise SystemExit(f"fit failed with {process.returncode}")
    return peaks


def row(images: int, epochs: int, batch: int, below: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=below) as place:
        root, cache, out = (Path(place, name) for name in ("tree", "cache", "run"))
        make_tree(root, images, _CLASSES)
        time.sleep(_SETTLED)
        code = "import memory, sys, pathlib; memory.build(*map(pathlib.Path, sys.argv[1:]))"
        here = Path(__file__).parent
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, str(root), str(cache)], cwd=here, check=True)
        built = time.perf_counter() - began
        return {"images": images, "build_s": built, **run(root, cache, out, epochs, batch)}


def run(root: Path, cache: Path, out: Path, epochs: int, batch: int) -> dict[str, Any]:
    """One `fit` in a process of its own."""
    # without this the allocator keeps what it likes, and two runs of one program differ by 10 MiB
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    command = [sys.executable, "-c", _FIT, *map(str, (root, epochs, batch, out, cache))]
    peaks = watch(subprocess.Popen(command, env=environment))
    rows = (out / "metrics.csv").read_text().splitlines()
    steps = int(rows[-1].split(",")[rows[0].split(",").index("step")])
    return {"steps": steps, **peaks, "fit_s": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="100,000 images instead of 1,000,000")
    parser.add_argument("--folder", type=Path, help="where all is written; default: the system's own")
    arguments = parser.parse_args()
    description = machine()
    many = 100_000 if arguments.quick else 1_000_000
    few, large = row(10_000, many // 10_000, _BATCH, arguments.folder), row(many, 1, _BATCH, arguments.folder)
    assert few["steps"] == large["steps"]
    ratios = {f"{name}_ratio": large[name] / few[name] for name in ("peak", "own", "mapped")}
    save("memory", description, [few, large | ratios])
    print(f"peak memory of fit on {many:,} images: {ratios['peak_ratio']:.3f} of that on 10,000, "
          f"its own part {ratios['own_ratio']:.3f} (below 1.1 is wanted)")  # fmt: skip


if __name__ == "__main__":
    main()
