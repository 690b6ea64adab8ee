"""What reads the files of a run folder: for each file a sound one, and the reading of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from tacit.claims.cells import _read
from tacit.cli.fit import _parser
from tacit.encoders.card import card_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.files import write_atomically
from tacit.methods.contrastive.moco import MoCo
from tacit.methods.contrastive.simclr import SimCLR
from tacit.report.page import write_report
from tacit.rng import Rng, seeded
from tacit.tasks.classes.classifier import ClassCard
from tacit.tasks.masks.segmenter import MaskCard
from tacit.tasks.predictor import Predictor
from tacit.tasks.registry import load_predictor
from tacit.tasks.values.regressor import ValueCard, ValueHead
from tacit.training.checkpoint import Checkpoint, load_optimizer
from tacit.training.metrics import Metrics
from tacit.training.optimise import make_optimizer
from tacit.training.resuming import restore
from tacit.training.run import Run
from tacit.training.settings import resumed_options
from tacit.training.summary import Summary

TINY = "tacit/convnet?width=4&depth=2"
CARDS: dict[str, Any] = {
    "class": ClassCard(classes=("a", "b"), temperature=1.5, held_out=4, grades={"accuracy": 0.5}),
    "mask": MaskCard(classes=("background", "a"), held_out=1),
    "value": ValueCard(width=2.0, coverage=0.9, count=20, held_out=20),
}


@dataclass(frozen=True)
class Reader:
    """A file and what reads it.

    file: its name in the folder. kind: of mutations. make: writes it, and what is read with it. read: reads
    the folder, as users do.
    """

    name: str
    file: str
    kind: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]


def _encoder(spec: str = TINY, **words: Any) -> nn.Module:
    with seeded(Rng.of(0)):
        return build_encoder(spec, **{"channels": 3, "size": 16, **words})


def _save_encoder(spec: str = TINY, **words: Any) -> Callable[[Path], None]:
    return lambda folder: save_encoder(_encoder(spec, **words), folder)


def see(encoder: nn.Module) -> None:
    """Features of one sample; they must be numbers, because the weights were."""
    form = card_of(encoder).form
    sides = (form.sides["size"],) * 2 if "size" in form.sides else form.sides["patch"] or (16, 16, 16)
    if max(sides) > 64:  # a card may ask for large ones
        return
    with torch.no_grad():
        assert encoder(torch.zeros(1, form.channels, *sides)).isfinite().all()


def _save_predictor(target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        encoder = _encoder("tacit/unet2d?width=4") if target == "mask" else _encoder()
        save_encoder(encoder, folder)
        linear = nn.Linear(8, 2 if target == "class" else 1)
        head = {"class": linear, "value": ValueHead(linear, 5.0, 2.0), "mask": nn.Conv2d(4, 2, 1)}[target]
        Predictor(encoder, head, CARDS[target]).save(folder, target)

    return make


def _save_older(folder: Path) -> None:
    _save_predictor("class")(folder)
    for end in (".json", ".safetensors"):
        (folder / f"predictor{end}").rename(folder / f"classifier{end}")


SETTINGS = {
    "data": "photos",
    "encoder": TINY,
    "epochs": 2,
    "lr": 0.1,
    "preset": "laptop",
    "method": {"name": "simclr", "temperature": 0.1, "projection": 8, "augment": {"blur": 0.5}},
    "record": {
        "data": {"fingerprint": "ab", "samples": 10, "labelled": 0, "skipped": 0, "classes": ["a"]},
        "labels": {"learned": {"a": 2}, "held_out": {"a": 1}, "unlabelled": 3, "digest": "cd"},
        "recipe": {"lr": 0.1, "clip": None},
        "versions": {"tacit": "0"},
    },
}
ROWS = "step,epoch,lr,loss,knn\n1,1,0.1,2.5,\n2,1,0.1,1.25,0.75\n3,2,0.05,nan,\n"


def _save_settings(folder: Path) -> None:
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    (folder / "metrics.csv").write_text(ROWS)


def _resume(folder: Path) -> None:
    run = Run(folder)
    run.settings()
    resumed_options(run, SimCLR, {})
    write_report(folder)


_PARSER = _parser("simclr")


def _configure(folder: Path) -> None:
    _PARSER.parse(["--config", str(folder / "run.yaml")])


def _continue(folder: Path) -> None:
    write_report(folder)
    Run(folder).metrics()
    Metrics(folder / "metrics.csv", start=2)


def _learner() -> tuple[MoCo, torch.optim.Optimizer]:
    method = MoCo(_encoder(), projection=4, queue=8)
    return method, make_optimizer(method, MoCo.recipe)


def _save_checkpoint(folder: Path) -> None:
    method, optimizer = _learner()
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    guard = {"looks": 0.0, "gradients": 3.0}
    Checkpoint(3, method.state_dict(), optimizer.state_dict(), 0.5, guard).save(Run(folder).last)


def _restore(folder: Path) -> None:
    run = Run(folder)
    checkpoint = Checkpoint.load(run.last)
    method, optimizer = _learner()
    restore(method, checkpoint, run)
    load_optimizer(optimizer, checkpoint.optimizer)
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def _summarise(folder: Path) -> None:
    summary = Summary.load(folder)
    assert summary is None or all("\n" not in line for line in summary.lines())


def _save_summary(folder: Path) -> None:
    Summary("balanced_accuracy", 9, "trained", {"trained": 0.5}, {"most frequent class": 0.4}).save(folder)


def _save_cell(folder: Path) -> None:
    write_atomically(folder / "cell.json", '{"parameters": {"a": 1}, "seconds": 2.0, "result": {"x": 1}}')


VOLUME = {"channels": 1, "size": None, "patch": (16, 16, 16)}
SLICES = "tacit/slices?image=tacit/convnet?width=4;depth=2&dim=8&depth=1&heads=2&dim_head=4&hidden=8&groups=2"
READERS = {
    reader.name: reader
    for reader in (
        *(
            Reader(
                f"{file} of {name}",
                file,
                file.rpartition(".")[2],
                _save_encoder(spec, **words),
                lambda folder: see(load_encoder(folder)),
            )
            for name, spec, words in (
                ("an image encoder", TINY, {}),
                ("a volume encoder", "tacit/vnet?width=2", VOLUME),
                ("slices", SLICES, {**VOLUME, "patch": (16, 16, 4)}),
            )
            for file in ("encoder.json", "encoder.safetensors")
        ),
        *(
            Reader(f"{file} of {t}s", file, file.rpartition(".")[2], _save_predictor(t), load_predictor)
            for t in CARDS
            for file in ("predictor.json", "predictor.safetensors")
        ),
        Reader("classifier.json", "classifier.json", "json", _save_older, load_predictor),
        Reader("run.yaml of a run", "run.yaml", "yaml", _save_settings, _resume),
        Reader("run.yaml as --config", "run.yaml", "yaml", _save_settings, _configure),
        Reader("metrics.csv", "metrics.csv", "csv", _save_settings, _continue),
        Reader("last.pt", "checkpoints/last.pt", "checkpoint", _save_checkpoint, _restore),
        Reader("summary.json", "summary.json", "json", _save_summary, _summarise),
        Reader("cell.json", "cell.json", "json", _save_cell, lambda folder: _read(folder / "cell.json")),
    )
}
