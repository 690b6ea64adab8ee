"""Ten tiny runs, some of them also stopped and resumed, and what they left: numbers and fingerprints.

    PYTHONPATH=tests python tests/recorded/runs.py    # adds this machine to tests/recorded/runs.json

Processors round differently, so there is one record for each way of rounding that was met. A change of the
code that should not change what is learned leaves `runs.json` as it is. Where a change is meant to, delete
the file, record again, look at the difference, and say why in the commit.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tacit
from balls import ball_folder
from tacit.training import running
from tacit.training.checkpoint import Checkpoint

RECORD = Path(__file__).with_name("runs.json")
IMAGE = {"encoder": "tacit/convnet?width=4", "epochs": 1, "batch_size": 16}
CLUSTERS = {**IMAGE, "options": {"prototypes": 8, "hidden": 16, "small": 1}}
FEW = {**IMAGE, "labels_per_class": 4, "mu": 2.0}
MASKS = {
    **{"encoder": "tacit/unet3d?width=4&depth=2", "epochs": 1, "batch_size": 2, "patch": (16, 16, 16)},
    "labelled": 4,
}
ALICE = {
    **{"encoder": "tacit/unet3d?width=4&depth=2", "epochs": 1, "batch_size": 4, "patch": (16, 16, 16)},
    "options": {"miner_steps": 2, "mask_block": 8, "prototypes": 16, "hidden": 16, "bottleneck": 8},
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "dcl": ("pictures", IMAGE),
    "moco": ("pictures", {**IMAGE, "options": {"queue": 32}}),
    "swav": ("pictures", CLUSTERS),
    "deepcluster": ("pictures", CLUSTERS),
    "supervised": ("pictures", FEW),
    "fixmatch": ("pictures", FEW),
    "semixup": ("pictures", FEW),
    "tracoco": ("volumes", MASKS),
    "ua-mt": ("volumes", MASKS),
    "alice": ("volumes", ALICE),
}
RESUMED = ("moco", "fixmatch", "ua-mt")
"""Runs that are also stopped after their first step and resumed."""
TIMED = ("samples_per_second",)


class _Stop(Exception):
    pass


def pictures(folder: Path) -> Path:
    """40 small grey pictures with stripes this way or that, in noise, two classes of 20."""
    draw = np.random.default_rng(0)
    stripes = 60 * np.sin(np.arange(16) * 1.3)
    label = np.arange(40) % 2
    clean = np.where(label[:, None, None] == 0, stripes[:, None], stripes[None, :])
    images = (128 + clean + draw.normal(0, 30, (40, 16, 16))).clip(0, 255).astype(np.uint8)
    path = folder / "pictures.npz"
    np.savez(path, allow_pickle=False, train_images=images, train_labels=label)
    return path


def volumes(folder: Path) -> Path:
    """8 volumes of one ball each, with masks."""
    return ball_folder(folder / "volumes", count=8, masks=8)


MAKERS = {"pictures": pictures, "volumes": volumes}


def learn(name: str, folder: Path, *, stopped: bool = False) -> dict[str, Any]:
    """What the run left. stopped: after the first step, and then resumed."""
    kind, settings = RUNS[name]
    data = MAKERS[kind](folder)
    settings = {**settings, "device": "cpu", "quiet": True, "save_every": 0.0, "out": folder / "run"}
    if stopped:
        _stop_after_one(name, data, settings)
        settings["resume"] = True
    run = tacit.fit(name, data, **settings)
    with run.metrics_file.open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]
    kept = {
        f"{path.stem} {key}": value
        for path in sorted(run.folder.glob("*.safetensors"))
        for key, value in load_file(path).items()
    }
    state = Checkpoint.load(run.last).method
    return {
        "metrics": rows,
        "kept": fingerprint(kept.values()),
        "kept size": size(kept.values()),
        "state": fingerprint(v for v in state.values() if isinstance(v, Tensor)),
    }


def _stop_after_one(name: str, data: Path, settings: dict[str, Any]) -> None:
    """As a kill does."""
    after = running.Watch.on_train_batch_end

    def stopping(self: Any, trainer: Any, learner: Any, *args: Any) -> None:
        after(self, trainer, learner, *args)
        if learner.index == 1:
            raise _Stop

    with mock.patch.object(running.Watch, "on_train_batch_end", stopping):
        try:
            tacit.fit(name, data, **settings)
        except _Stop:
            return
    raise AssertionError(f"{name} was not stopped")


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Of the values, whatever they are called and wherever they are kept."""
    each = sorted(
        f"{tuple(t.shape)} {blake2b(t.contiguous().numpy().tobytes(), digest_size=16).hexdigest()}"
        for t in tensors
    )
    return blake2b("\n".join(each).encode(), digest_size=16).hexdigest()


def size(tensors: Iterable[Tensor]) -> float:
    """Root of the sum of squares of all numbers: tells other weights apart where rounding differs."""
    return float(sum(t.double().square().sum() for t in tensors if t.is_floating_point()) ** 0.5)


def rounding() -> str:
    """Fingerprint of a few steps of plain torch: equal where the machine and torch round alike."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    flat, deep = nn.Conv2d(3, 8, 3, stride=2), nn.Conv3d(1, 4, 3)
    parameters = [*flat.parameters(), *deep.parameters()]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(draw(*parameter.shape))
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    for _ in range(3):
        plane = flat(draw(8, 3, 16, 16).contiguous(memory_format=torch.channels_last))
        feature = torch.cat([plane.mean((2, 3)), deep(draw(8, 1, 8, 8, 8)).mean((2, 3, 4))], 1)
        loss = torch.nn.functional.normalize(feature) @ draw(12, 6)
        optimizer.zero_grad()
        loss.logsumexp(1).mean().backward()
        optimizer.step()
    return f"torch {torch.__version__} {fingerprint(p.detach() for p in parameters)}"


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as place:
            found[name] = learn(name, Path(place))
        print(name, found[name]["kept"])
    records = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    RECORD.write_text(json.dumps({**records, rounding(): found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
