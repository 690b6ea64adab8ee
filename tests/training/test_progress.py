"""What a person sees of a run: method, epoch, step of the whole run, and the time left, named as such."""

import re

import pytest

from tacit.cli.main import main
from tacit.training import progress
from tacit.training.loader import Plan
from tacit.training.progress import ProgressBar
from tacit.training.run import Run


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(bar, capsys):
    bar.line()
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_at_the_pace_since_the_first_step(clock, capsys):
    bar = ProgressBar("dcl", Plan(samples=40, batch_size=4, epochs=3), 0, quiet=False)
    clock[0] += 500  # what comes before the first step does not count
    bar.at(1, 1)
    assert lines(bar, capsys) == ["dcl  epoch 1/3  step 1/30"]
    clock[0] += 18
    bar.at(10, 1)
    bar.show({"loss": 0.25})
    assert lines(bar, capsys) == ["dcl  epoch 1/3  step 10/30  loss 0.25  about 40 s left"]
    clock[0] += 40
    bar.at(30, 3)
    assert lines(bar, capsys) == ["dcl  epoch 3/3  step 30/30  loss 0.25  0 s left"]


def test_a_resumed_run_counts_all_steps_and_times_its_own(clock, capsys):
    bar = ProgressBar("moco", Plan(samples=40, batch_size=4, epochs=3), 20, quiet=False)
    bar.at(21, 3)
    clock[0] += 6
    bar.at(24, 3)
    assert lines(bar, capsys) == ["moco  epoch 3/3  step 24/30  about 12 s left"]


def test_long_epochs_have_lines_too(clock, capsys):
    bar = ProgressBar("dcl", Plan(samples=4000, batch_size=4, epochs=1), 0, quiet=False)
    for done in range(1, 131):
        bar.at(done, 1)
        bar.line_if_late()
        clock[0] += 1
    said = capsys.readouterr().err.splitlines()
    assert [re.search(r"step (\d+)", line)[1] for line in said] == ["61", "121"]


def test_quiet_is_quiet(clock, capsys):
    bar = ProgressBar("dcl", Plan(samples=40, batch_size=4, epochs=3), 0, quiet=True)
    bar.at(30, 3)
    assert lines(bar, capsys) == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_forecast_and_the_lines_count_the_same_steps(accumulate, jpgs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.0)
    words = ["--encoder", "tacit/convnet?width=4", "--epochs", "4", "--batch-size", "16", "--device", "cpu"]
    words = ["fit", "simclr", "--data", str(jpgs), *words, "--accumulate", str(accumulate)]
    assert main([*words, "--out", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().err
    steps = [int(row["step"]) for row in Run(tmp_path / "x").metrics()]
    assert steps[-1] == 16
    assert re.findall(r"simclr  epoch (\d)/4  step (\d+)/16", said) == [
        ("1", "4"),
        ("2", "8"),
        ("3", "12"),
        ("4", "16"),
    ]
    assert "left for steps 11 to 16; peak memory" in said
