"""`tacit.fit` from Python: hooks, parts, own modules, several processes, changed data."""

import csv
import socket
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import nn

import tacit
from tacit.encoders.card import card_of
from tacit.encoders.zoo import build_encoder
from tacit.methods.contrastive.moco import MoCo
from tacit.methods.contrastive.simclr import SimCLR
from tacit.training.running import default_folder

QUICK = {"batch_size": 16, "epochs": 1, "device": "cpu", "quiet": True, "encoder": "tacit/convnet"}


class Witness(SimCLR):
    """SimCLR that remembers what was called."""

    calls: ClassVar[list] = []

    def prepare(self, source):
        self.calls.append(("prepare", len(source), self.training))

    def begin(self, source, *, progress):
        self.calls.append(("begin", len(source), progress))

    def on_epoch(self, source, step):
        self.calls.append(("on_epoch", step.index, step.epoch))

    def after_step(self, step):
        self.calls.append(("after_step", step.index))

    def finish(self, source):
        self.calls.append(("finish", len(source)))


def test_the_life_of_a_method(jpgs, tmp_path):
    Witness.calls.clear()
    tacit.fit(f"{__name__}:Witness", jpgs, **{**QUICK, "epochs": 2}, out=tmp_path / "x")
    expected = [("prepare", 64, True), ("begin", 64, False)]
    for epoch in (0, 1):
        expected += [("on_epoch", 4 * epoch, epoch)]
        expected += [("after_step", i) for i in range(4 * epoch, 4 * epoch + 4)]
    assert Witness.calls == [*expected, ("finish", 64)]


def test_after_step_comes_once_per_step_also_in_parts(jpgs, tmp_path, capsys):
    Witness.calls.clear()
    tacit.fit(f"{__name__}:Witness", jpgs, **{**QUICK, "quiet": False}, accumulate=2, out=tmp_path / "x")
    assert [call for call in Witness.calls if call[0] == "after_step"] == [
        ("after_step", i) for i in range(4)
    ]
    assert "2 parts of 8 are not a batch of 16" in capsys.readouterr().err


class Still(MoCo):
    """MoCo whose BatchNorm stands still, so that parts of a batch can equal the batch."""

    def losses(self, views, step):
        self.eval()
        return super().losses(views, step)


def test_parts_equal_the_whole_batch_where_the_method_permits_it(jpgs, tmp_path):
    runs = [
        tacit.fit(
            f"{__name__}:Still",
            jpgs,
            **QUICK,
            lr=0.3,
            lr_scaling="none",
            accumulate=parts,
            out=tmp_path / str(parts),
        )
        for parts in (1, 2)
    ]
    whole, parts = (run.encoder().state_dict() for run in runs)
    start = build_encoder("tacit/convnet", size=28).state_dict()
    for name in whole:
        assert torch.allclose(whole[name].float(), parts[name].float(), atol=1e-5), name
    assert not torch.allclose(whole["layers.0.weight"], start["layers.0.weight"], atol=1e-3)


def test_clipping_bounds_the_step(jpgs, tmp_path):
    plain = {
        **QUICK,
        "optimizer": "momentum",
        "lr": 1.0,
        "lr_scaling": "none",
        "schedule": "constant",
        "warmup": 0.0,
    }
    start = build_encoder("tacit/convnet", size=28).state_dict()
    moved = []
    for clip in (None, 1e-6):
        run = tacit.fit("dcl", jpgs, **plain, momentum=0.0, clip=clip, out=tmp_path / str(clip))
        after = run.encoder().state_dict()
        moved.append((after["layers.0.weight"] - start["layers.0.weight"]).abs().max().item())
    assert moved[0] > 1e-3
    assert moved[1] < 1e-4


def test_a_run_is_not_resumed_on_other_data(jpgs, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(jpgs.iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    run = tacit.fit("dcl", folder, **QUICK, out=tmp_path / "x")
    (run.folder / "encoder.json").unlink()  # as if it had been stopped before its end
    moved = folder.rename(tmp_path / "moved")
    tacit.fit("dcl", moved, **QUICK, out=run, resume=True)  # the same data elsewhere are the same data
    assert run.finished
    (run.folder / "encoder.json").unlink()
    Image.new("RGB", (24, 32)).save(moved / "000.jpg")
    with pytest.raises(tacit.UsageError, match="the data have changed"):
        tacit.fit("dcl", moved, **QUICK, out=run, resume=True)


class Tied(nn.Module):
    """A module of the user's own, with two layers that share their weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        pooled = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.second(self.first(pooled).relu())


def test_a_module_of_ones_own(jpgs, labelled_folder, tmp_path):
    own = tacit.attach_card(Tied(), channels=3, size=24, num_features=12)
    run = tacit.fit("dcl", jpgs, **{**QUICK, "encoder": own}, out=tmp_path / "x")
    assert run.finished
    report = tacit.probe(own, labelled_folder, device="cpu")
    assert [result.representation for result in report.results] == ["learned", "raw pixels"]
    assert tacit.embed(own, jpgs, tmp_path / "e.npz", device="cpu").is_file()


def test_wrong_values_are_one_line_in_python_too(jpgs, tmp_path):
    for change, message in (
        ({"precision": "64"}, "unknown precision"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"lr_scaling": "square"}, "unknown lr_scaling"),
        ({"options": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"options": {"augment": {"scael": 1}}}, "did you mean 'scale'"),
        ({"options": {"augment": "strong"}}, "takes a Augment or a mapping"),
    ):
        with pytest.raises(tacit.UsageError, match=message):
            tacit.fit("dcl", jpgs, **{**QUICK, **change}, out=tmp_path / "x")


def test_an_encoder_that_exists_keeps_its_size(jpgs, tmp_path):
    first = tacit.fit("dcl", jpgs, **QUICK, size=16, out=tmp_path / "a")
    second = tacit.fit("dcl", jpgs, **{**QUICK, "encoder": f"run:{first}"}, out=tmp_path / "b")
    assert card_of(second.encoder()).form.size == 16
    with pytest.raises(tacit.UsageError, match="sees 16 pixels"):
        tacit.fit("dcl", jpgs, **{**QUICK, "encoder": f"run:{first}"}, size=20, out=tmp_path / "c")


def test_default_folders_have_plain_names():
    assert str(default_folder("dcl", "/data/my photos/")) == "runs/dcl-my-photos"
    assert str(default_folder("dcl", "hf:user/a.b")) == "runs/dcl-a.b"
    assert str(default_folder("align:AlignUniform", "x.npz")) == "runs/align-AlignUniform-x"


def test_two_processes_make_one_run(jpgs, tmp_path):
    out = tmp_path / "x"
    command = [
        sys.executable,
        "-m",
        "tacit",
        "fit",
        "moco",
        "--data",
        str(jpgs),
        "--encoder",
        "tacit/convnet",
    ]
    command += ["--epochs", "1", "--batch-size", "16", "--device", "cpu", "--devices", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("encoder:") == 1
    with (out / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert (out / "report.html").is_file()


def test_two_nodes_make_one_run(jpgs, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "x"
    words = ["fit", "dcl", "--data", str(jpgs), "--encoder", "tacit/convnet", "--epochs", "1"]
    words += ["--batch-size", "16", "--device", "cpu", "--nodes", "2", "--out", str(out)]
    place = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    start = [sys.executable, "-m", "torch.distributed.run", *place]
    nodes = [
        subprocess.Popen(
            [*start, "--node-rank", str(k), "-m", "tacit", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "each of 2 processes normalises its own part of a batch" in said[0][1]
    assert "encoder:" not in said[1][0]
    with (out / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
