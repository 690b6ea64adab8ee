"""Time, memory and disk: foretold, and when they do not suffice one line and a checkpoint that is kept."""

import contextlib
import errno
import os
import resource
import shutil
import signal
from collections import namedtuple

import pytest
import torch

import tacit
from tacit.cli.main import main
from tacit.encoders.card import attach_card
from tacit.methods.contrastive.moco import MoCo
from tacit.methods.contrastive.simclr import SimCLR
from tacit.training import forecast, resources
from tacit.training.checkpoint import Checkpoint
from tacit.training.forecast import Forecast, duration
from tacit.training.loader import Plan
from tacit.training.metrics import Metrics
from tacit.training.run import Run
from tacit.training.watch import Watch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WORDS = ["fit", "dcl", "--encoder", "tacit/convnet", "--batch-size", "16", "--epochs", "3", "--device", "cpu"]


def fit(jpgs, out, *words):
    return main([*WORDS, "--data", str(jpgs), "--save-every", "0", "--out", str(out), *words])


@pytest.fixture
def after_step_three(monkeypatch):
    """Does something to the machine, once, between the third step and the fourth."""

    def arrange(action):
        after, actions = Watch._after_step, [action]

        def acting(self, learner, done):
            if done == 4 and actions:
                actions.pop()()
            after(self, learner, done)

        monkeypatch.setattr(Watch, "_after_step", acting)

    return arrange


def check_kept(out, code, err, reason):
    """One line that says what failed, what is kept and how to go on; nothing half-written."""
    (line,) = err.strip().splitlines()
    assert code == 1
    assert reason in line
    assert f"the last checkpoint is kept ({out}/checkpoints/last.pt)" in line
    assert f"tacit fit --resume --out {out}" in line
    assert Checkpoint.load(out / "checkpoints" / "last.pt").step == 3
    assert not [path for path in out.rglob(".*")]
    assert not Run(out).finished


@contextlib.contextmanager
def restored_file_limit():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_cannot_grow_keeps_the_checkpoint_and_goes_on_later(
    jpgs, tmp_path, capsys, after_step_three
):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    after_step_three(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    with restored_file_limit():
        code = fit(jpgs, tmp_path / "x", "--quiet")
    check_kept(tmp_path / "x", code, capsys.readouterr().err, "last.pt: File too large")
    assert fit(jpgs, tmp_path / "whole", "--quiet") == 0
    assert main(["fit", "--resume", "--out", str(tmp_path / "x"), "--quiet"]) == 0
    weights = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("x", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_target_that_turns_unwritable(number, jpgs, tmp_path, capsys, monkeypatch, after_step_three):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    after_step_three(lambda: monkeypatch.setattr("tempfile.mkstemp", refuse))
    code = fit(jpgs, tmp_path / "x", "--quiet")
    check_kept(tmp_path / "x", code, capsys.readouterr().err, f"last.pt: {os.strerror(number)}")


def test_a_full_disk_while_metrics_are_written(jpgs, tmp_path, capsys, monkeypatch, after_step_three):
    def refuse(self, row):
        raise tacit.TacitError("cannot write metrics.csv: No space left") from OSError(errno.ENOSPC, "")

    after_step_three(lambda: monkeypatch.setattr(Metrics, "_append", refuse))
    code = fit(jpgs, tmp_path / "x", "--quiet")
    check_kept(tmp_path / "x", code, capsys.readouterr().err, "cannot write metrics.csv")


def test_a_row_that_does_not_fit_is_taken_back(tmp_path):
    metrics = Metrics(tmp_path / "metrics.csv", start=0)
    metrics.write({"step": 1, "loss": 0.5})
    before = metrics.path.read_bytes()
    with restored_file_limit():
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, hard))
        with pytest.raises(tacit.TacitError, match="cannot write"):
            metrics.write({"step": 2, "loss": 0.25})
    assert metrics.path.read_bytes() == before


def test_a_target_that_never_was_writable(jpgs, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert fit(jpgs, tmp_path / "file" / "x", "--quiet") == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_full_disk_is_refused_before_anything_is_written(jpgs, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**5, 10**5))
    assert fit(jpgs, tmp_path / "x", "--quiet") == 1
    err = capsys.readouterr().err
    assert "has 0.1 MiB free; a checkpoint takes" in err
    assert "choose another --out" in err
    assert not (tmp_path / "x").exists()


def test_what_a_killed_process_left_is_swept(jpgs, tmp_path, after_step_three):
    def die():
        raise SystemExit

    after_step_three(die)
    with pytest.raises(SystemExit):
        fit(jpgs, tmp_path / "x", "--quiet")
    (tmp_path / "x" / "checkpoints" / ".last.pt.abcdefgh").write_text("half")
    (tmp_path / "x" / ".encoder.safetensors.abcdefgh").write_text("half")
    (tmp_path / "x" / ".mine").write_text("not ours")
    assert main(["fit", "--resume", "--out", str(tmp_path / "x"), "--quiet"]) == 0
    assert [path.name for path in (tmp_path / "x").rglob(".*")] == [".mine"]


class Greedy(SimCLR):
    """SimCLR that asks for a petabyte at its third step."""

    def losses(self, views, step):
        if step.index == 2:
            torch.empty(10**15)
        return super().losses(views, step)


def test_out_of_memory_is_one_line_with_the_mend(jpgs, tmp_path):
    with pytest.raises(tacit.TacitError, match="out of memory on cpu with 16 samples at once: pass") as error:
        tacit.fit(
            f"{__name__}:Greedy",
            jpgs,
            encoder="tacit/convnet",
            batch_size=16,
            epochs=1,
            device="cpu",
            quiet=True,
            out=tmp_path / "x",
        )
    assert "--batch-size 8" in str(error.value)
    assert Checkpoint.load(tmp_path / "x" / "checkpoints" / "last.pt").step == 1


def test_which_errors_are_out_of_memory():
    assert resources.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert resources.is_out_of_memory(MemoryError())
    assert not resources.is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def method(kind, size=224):
    return kind(attach_card(torch.nn.Linear(1, 8), channels=3, size=size, num_features=8))


def test_the_options_that_make_a_run_fit():
    plan = Plan(samples=1000, batch_size=256, epochs=1)
    save = resources.options_that_save_memory
    assert save(method(MoCo), plan, CUDA, full=True) == (
        "--accumulate 2 (the batch stays 256) or --precision bf16 or --batch-size 128 or --size 112"
    )
    # parts of a batch are not the batch for simclr; bf16 is in use already; 32 pixels are few
    assert save(method(SimCLR, size=32), plan, CUDA, full=False) == "--batch-size 128"
    assert save(method(SimCLR, size=32), Plan(10, 2, 1), CPU, full=True) == "a smaller --encoder"


def test_bytes_of_a_checkpoint_by_hand():
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    parameters, buffers = 3 * 5 + 5 + 5 + 5, 5 + 5
    assert resources.state_bytes(net) == 2 * 4 * parameters + 4 * buffers + 8  # the counter has 8 bytes


def test_memory_of_this_process_is_known():
    assert 2**25 < resources.peak_memory(CPU) < 2**40
    assert [total > used > 0 for used, total in resources.machine_memory()]


def test_durations():
    assert [duration(s) for s in (0.2, 45, 99, 720, 12_000, 300_000)] == [
        "1 s",
        "45 s",
        "99 s",
        "12 min",
        "3 h 20 min",
        "3 days",
    ]


def test_the_forecast_is_the_median_of_a_few_steps(monkeypatch):
    now = iter(range(10**6))
    clock = [0.0]
    monkeypatch.setattr(forecast.time, "monotonic", lambda: clock[0])
    seen = Forecast(CPU)
    for seconds in (60, 30, *[2] * 5, 90, 2, 2):  # the first two do not count, an outlier hardly
        assert not seen.ready
        seen.begin()
        clock[0] += seconds
        seen.end()
        clock[0] += 1000 + next(now)  # what is done between steps does not count
    assert seen.ready
    assert seen.seconds(1000) == 2000


def test_a_run_says_how_long_it_will_take(jpgs, tmp_path, capsys):
    assert fit(jpgs, tmp_path / "x") == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("forecast: ")]
    assert "left for steps 11 to 12; peak memory" in line
    assert fit(jpgs, tmp_path / "y", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_tight_memory_names_the_option(jpgs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tacit.training.watch.memory_is_tight", lambda device: True)
    assert fit(jpgs, tmp_path / "x") == 0
    assert "memory is nearly full; if it does not suffice, pass --batch-size 8" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--save-every", "-1"), ("--save-every", "nan"), ("--on-collapse", "cry")])
def test_wrong_values(words, jpgs, tmp_path, capsys):
    assert fit(jpgs, tmp_path / "x", "--quiet", *words) == 2
    assert words[0].strip("-") in capsys.readouterr().err.replace("_", "-")


def test_both_options_are_free_on_resume(jpgs, tmp_path):
    out = tmp_path / "x"
    assert fit(jpgs, out, "--quiet") == 0
    (out / "encoder.json").unlink()
    words = ["--resume", "--save-every", "7", "--on-collapse", "warn", "--quiet"]
    assert main(["fit", "--out", str(out), *words]) == 0
    assert Run(out).settings()["save_every"] == 7
