"""Two processes on one folder: the second is refused before it touches anything. Stops that come twice."""

import os
import signal
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import tacit
from tacit.cli.main import main
from tacit.errors import TacitError, UsageError
from tacit.locks import owning
from tacit.tasks.probing import ProbeReport
from tacit.training.run import Run
from tacit.training.watch import Watch

SMALL = ["--encoder", "tacit/convnet?width=4", "--batch-size", "16", "--device", "cpu", "--quiet"]


@contextmanager
def owned_elsewhere(folder):
    """Within the block another thread owns the folder, as another process would."""
    taken, over = threading.Event(), threading.Event()

    def own():
        with owning(folder):
            taken.set()
            over.wait()

    thread = threading.Thread(target=own)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fit(*words):
    return main(["fit", *(str(word) for word in words)])


def test_two_fits_on_one_folder(jpgs, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["dcl", "--data", jpgs, "--epochs", 1, *SMALL, "--out", out]
    with owned_elsewhere(out):
        assert fit(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"tacit: '{out}' is in use by process {os.getpid()} on ")
        assert error.endswith(": wait until it has ended, or choose another --out\n")
        assert [path.name for path in out.iterdir()] == [".lock"]
    assert fit(*words) == 0
    assert not (out / ".lock").exists()
    (out / "encoder.json").rename(tmp_path / "card")  # as if it were still learning
    before = contents(out)
    with owned_elsewhere(out):
        assert fit("--resume", "--out", out) == 2
        assert "is in use by" in capsys.readouterr().err
        (out / ".lock").touch()
        assert {path: text for path, text in contents(out).items() if path.name != ".lock"} == before


def test_a_finished_run_is_read_while_another_process_owns_it(jpgs, tmp_path):
    out = tmp_path / "run"
    assert fit("dcl", "--data", jpgs, "--epochs", 1, *SMALL, "--out", out) == 0
    with owned_elsewhere(out):
        assert fit("--resume", "--out", out) == 0  # nothing is left to do


def test_a_pretraining_owns_a_folder_too(labelled_folder, tmp_path, capsys):
    pretrain = ["--pretrain", "simclr", "--pretrain-epochs", 1, "--pretrain-batch-size", 16]
    words = [
        "supervised",
        "--data",
        labelled_folder,
        "--labels-per-class",
        4,
        "--epochs",
        1,
        *SMALL,
        *pretrain,
    ]
    with owned_elsewhere(tmp_path / "run-simclr"):
        assert fit(*words, "--out", tmp_path / "run") == 2
        assert f"'{tmp_path / 'run-simclr'}' is in use by" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert fit(*words, "--out", tmp_path / "run") == 0


def test_a_lock_that_was_left_is_no_other_content(jpgs, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").write_text("process 1 on elsewhere")
    assert fit("dcl", "--data", jpgs, "--epochs", 1, *SMALL, "--out", out) == 0


def test_the_demo_owns_its_folder(tmp_path, capsys):
    with owned_elsewhere(tmp_path / "demo"):
        assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "is in use by" in capsys.readouterr().err
    assert main(["demo", "--out", ""]) == 2


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGTERM], 143),
    ],
)
def test_a_second_signal_ends_at_once_with_the_same_code(numbers, code, jpgs, tmp_path, monkeypatch, capsys):
    after, steps = Watch._after_step, []

    def stopped(self, learner, done):
        after(self, learner, done)
        steps.append(done)
        if done == 2:
            for number in numbers:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Watch, "_after_step", stopped)
    out = tmp_path / "run"
    assert fit("dcl", "--data", jpgs, "--epochs", 2, *SMALL, "--out", out) == code
    assert capsys.readouterr().err == f"tacit: stopped; go on with: tacit fit --resume --out {out}\n"
    assert steps[-1] <= 3
    monkeypatch.undo()
    assert fit("--resume", "--out", out) == 0


def test_an_interrupt_that_lightning_meets_is_no_failure(jpgs, tmp_path, monkeypatch, capsys):
    def early(self, trainer, learner):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Watch, "on_fit_start", early)
    out = tmp_path / "run"
    assert fit("dcl", "--data", jpgs, "--epochs", 2, *SMALL, "--out", out) == 143
    assert capsys.readouterr().err == "tacit: stopped; go on with: the same command\n"


def test_a_report_that_cannot_be_kept_is_not_lost(jpgs, labelled_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert fit("dcl", "--data", jpgs, "--epochs", 1, *SMALL, "--out", out) == 0
    (out / "probes").touch()  # a file where the folder should be
    report = tacit.probe(Run(out).folder, labelled_folder, device="cpu")
    assert "learned" in str(report)
    assert "note: the report is not kept (cannot write " in capsys.readouterr().err

    def full(self, path):
        raise TacitError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(ProbeReport, "save", full)
    words = ["probe", str(out), "--data", str(labelled_folder), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "report.json")]) == 1
    said = capsys.readouterr().err
    assert "raw pixels" in said
    assert said.splitlines()[-1].endswith("report.json: No space left on device")


def test_out_is_looked_at_before_anything_is_computed(jpgs, tmp_path, capsys):
    (tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "x.csv")
    for words in (["embed", "tacit/convnet"], ["probe", "tacit/convnet"]):
        assert main([*words, "--data", str(tmp_path / "absent"), "--out", inside]) == 1
        assert capsys.readouterr().err.startswith(f"tacit: cannot write {inside}: ")


def test_two_predictions_into_one_folder(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from tacit.tasks.masks import predict
    from tacit.tasks.masks.numbering import Numbering

    monkeypatch.setattr(predict, "_numbering", lambda source, segmenter: Numbering(np.arange(2)))
    asked = SimpleNamespace(folder=tmp_path / "masks", where=())
    with owned_elsewhere(tmp_path / "masks"), pytest.raises(UsageError, match="masks' is in use by"):
        predict.write_masks(None, None, asked)
