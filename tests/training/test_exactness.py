"""A killed run equals an uninterrupted one; two processes equal one."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tacit.encoders.zoo import build_encoder
from tacit.training.checkpoint import Checkpoint

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"


@pytest.mark.parametrize("method", ["nnclr", "swav", "deepcluster"])
def test_killed_three_times_is_never_killed(method, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    kills = importlib.import_module("kills")
    row = kills.prove(kills.server(), method, tmp_path, kills=3, epochs=2)
    assert row["kills"] == 3
    assert row["encoder_equal"]
    assert row["losses_equal"]
    assert row["left_over"] == 0


@pytest.fixture(scope="module")
def two(jpgs, tmp_path_factory):
    """Run folders of all methods, each learned with two processes."""
    out = tmp_path_factory.mktemp("two")
    words = [sys.executable, str(HERE / "two_processes.py"), str(jpgs), str(out)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", ["StillSimCLR", "StillMoCo", "StillNNCLR", "StillSwAV", "StillDeepCluster"])
def test_two_processes_learn_what_one_learns(name, two, jpgs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    one = importlib.import_module("two_processes").learn(name, jpgs, tmp_path / name, 1)
    states = [Checkpoint.load(folder / "checkpoints" / "last.pt") for folder in (one.folder, two / name)]
    assert [state.step for state in states] == [8, 8]
    start = build_encoder("tacit/convnet?width=8", size=28).state_dict()["layers.0.weight"]
    assert (states[0].method["encoder.layers.0.weight"] - start).abs().max() > 1e-3  # something was learned
    for key, value in states[0].method.items():
        difference = (value.double() - states[1].method[key].double()).abs().max()
        assert difference < 1e-6, (key, difference)
