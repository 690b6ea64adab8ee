"""Whole runs of semi-supervised methods, as small as they get, through `tacit.fit`."""

import csv
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tacit
from tacit.cli.main import main
from tacit.data.open import open_source
from tacit.encoders.card import attach_card
from tacit.methods.classification.fixmatch import FixMatch
from tacit.methods.registry import own_methods
from tacit.rng import Rng, seeded
from tacit.training import running

TINY = {"encoder": "tacit/convnet?width=4", "device": "cpu", "quiet": True, "epochs": 1}
SLUGS = [
    slug for slug, entry in own_methods().items() if entry.learns == "class" and entry.modality == "image"
]


def weights(run):
    files = ("encoder.safetensors", "predictor.safetensors")
    return {f"{file} {k}": v for file in files for k, v in load_file(run.folder / file).items()}


@pytest.mark.parametrize("slug", SLUGS)
def test_two_steps_of_each_method_and_a_prediction(slug, labelled_folder, tmp_path):
    run = tacit.fit(slug, labelled_folder, out=tmp_path / "run", batch_size=39, labels_per_class=4, **TINY)
    rows = run.metrics()
    assert int(rows[-1]["step"]) == 2
    assert 0 <= float(rows[-1]["balanced_accuracy"]) <= 1
    found = tacit.predict(run, labelled_folder, tmp_path / "p.csv", device="cpu")
    assert found.grades.n == 80
    with found.path.open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 80
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in table)


def test_there_are_eleven():
    assert len(SLUGS) == 11


@pytest.mark.parametrize("slug", ["semixup", "fixmatch"])
def test_without_any_unlabelled_sample_the_labelled_ones_are_both(slug, labelled_folder, tmp_path):
    run = tacit.fit(slug, labelled_folder, out=tmp_path / "run", batch_size=40, held_out=0.0, **TINY)
    record = run.settings()["record"]
    assert record["labels"]["unlabelled"] == 0
    assert record["labels"]["learned"] == {"china": 40, "flower": 40}
    assert record["data"]["samples"] == record["data"]["labelled"] == 80
    assert "balanced_accuracy" not in run.metrics()[-1] or not run.metrics()[-1]["balanced_accuracy"]
    assert float(run.metrics()[-1]["loss"]) > 0


class Mean(nn.Module):
    """An encoder without BatchNorm, to which parts of a batch are the batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))


def mean():
    with seeded(Rng.of(3)("mean")):
        return attach_card(Mean(), channels=3, size=24, num_features=8)


@pytest.mark.parametrize("slug", ["supervised", "pi-model", "mean-teacher", "fixmatch"])
def test_parts_equal_the_whole_batch(slug, labelled_folder, tmp_path):
    options = {"labels_per_class": 8, "batch_size": 24, "mu": 2.0, "optimizer": "sgd", "lr": 0.5}
    # so that all samples count and so does the unlabelled term from the start
    options["options"] = {"fixmatch": {"threshold": 0.0}, "supervised": {}}.get(slug, {"ramp": 0.0})
    settings = {**TINY, "epochs": 2, **options}
    runs = [
        tacit.fit(
            slug, labelled_folder, out=tmp_path / str(k), accumulate=k, **{**settings, "encoder": mean()}
        )
        for k in (1, 2)
    ]
    whole, parts = map(weights, runs)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], atol=1e-5, rtol=1e-4)
    assert (whole["encoder.safetensors conv.weight"] - mean().conv.weight).abs().max() > 1e-3


class Watched(FixMatch):
    """FixMatch that remembers which samples it saw."""

    seen: set = set()  # noqa: RUF012  # one for the one test that uses it

    def losses(self, views, step):
        self.seen.update(views.index.tolist())
        return super().losses(views, step)


def test_no_group_is_on_both_sides(labelled_folder, tmp_path, monkeypatch):
    taught = []
    draw = running.teach
    monkeypatch.setattr(running, "teach", lambda *given: taught.append(draw(*given)) or taught[-1])
    Watched.seen.clear()
    run = tacit.fit(
        f"{__name__}:Watched",
        labelled_folder,
        out=tmp_path / "run",
        groups=r"re:\w+/0\d",  # ten images, as of one patient
        labels_per_class=8,
        batch_size=15,
        **{**TINY, "epochs": 4},
    )
    (teaching,) = taught
    names = open_source(labelled_folder).names
    groups = [re.search(r"\w+/0\d", name)[0] for name in names]
    held = {groups[i] for i in teaching.held_out}
    assert len(held) == 2  # one of each class holds two labels
    assert len(teaching.held_out) == 4
    assert run.settings()["record"]["labels"]["learned"] == {"china": 8, "flower": 8}
    assert len(Watched.seen) == 60
    assert not {groups[i] for i in Watched.seen} & held
    learned = {teaching.pool.names[i] for i in teaching.labelled.positions}
    assert not {re.search(r"\w+/0\d", name)[0] for name in learned} & held
    # beyond the budget nobody has a label
    assert {names[i] for i in teaching.whole.labelled} == learned | {names[i] for i in teaching.held_out}


def test_groups_from_the_command_line(labelled_folder, tmp_path, capsys):
    table = tmp_path / "patients.csv"
    names = open_source(labelled_folder).names
    table.write_text("file,patient\n" + "".join(f"{name},{i // 4}\n" for i, name in enumerate(names)))
    words = ["fit", "supervised", "--data", str(labelled_folder), "--out", str(tmp_path / "run")]
    words += ["--groups", str(table), "--labels-per-class", "4", "--batch-size", "16", "--epochs", "1"]
    assert main([*words, "--encoder", TINY["encoder"], "--device", "cpu", "--quiet"]) == 0
    assert "next:    tacit predict" in capsys.readouterr().out
    record = tacit.Run(tmp_path / "run").settings()["record"]
    assert record["labels"]["held_out"] == {"china": 1, "flower": 1}
    assert record["data"]["samples"] == 80 - 2 * 4  # with the held-out image goes its whole group


def test_more_labels_than_a_class_has(labelled_folder, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    rows = [f"china/{i:03}.png,a" for i in range(3)] + [f"flower/{i:03}.png,b" for i in range(20)]
    table.write_text("\n".join(["file,label", *rows]))
    run = tacit.fit(
        "supervised",
        labelled_folder,
        out=tmp_path / "run",
        labels=str(table),
        labels_per_class=5,
        batch_size=16,
        **{**TINY, "quiet": False},
    )
    assert "note: class 'a' contributes 3 label(s), 5 were asked for: all it has" in capsys.readouterr().err
    assert run.settings()["record"]["labels"]["learned"] == {"a": 3, "b": 5}
    assert run.settings()["record"]["labels"]["held_out"] == {"b": 2}
