"""Optimiser, schedule, metrics, checkpoints and files, each alone."""

import csv
import math

import pytest
import torch
from torch import nn

from tacit.errors import TacitError, UsageError
from tacit.files import replacing, write_atomically
from tacit.methods.recipe import Recipe
from tacit.training.checkpoint import Checkpoint
from tacit.training.metrics import Metrics
from tacit.training.optimise import learning_rate, make_optimizer, make_schedule
from tacit.training.run import Run

RECIPE = Recipe(optimizer="lars", lr=0.1, batch_size=64, epochs=1, weight_decay=0.01, warmup=0.1)


def recipe(**changes):
    from dataclasses import replace

    return replace(RECIPE, **changes)


def test_learning_rate_rules():
    assert learning_rate(recipe(lr_scaling="none")) == 0.1
    assert learning_rate(recipe(lr_scaling="linear")) == pytest.approx(0.1 * 64 / 256)
    assert learning_rate(recipe(lr_scaling="sqrt")) == pytest.approx(0.8)


def test_biases_and_norms_are_not_decayed():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(net, RECIPE).param_groups
    decayed = [p for group in groups if group["weight_decay"] > 0 for p in group["params"]]
    assert len(decayed) == 1
    assert decayed[0] is net[0].weight


def test_lars_by_hand():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    optimizer = make_optimizer(layer, recipe(lr=1.0, momentum=0.0, weight_decay=0.1))
    layer.weight.grad = torch.tensor([[0.6, 0.8]])
    optimizer.step()
    # trust ratio 0.001 |w| / (|g| + wd |w|) = 0.001 * 5 / (1 + 0.5); update = ratio * (g + wd w)
    ratio = 0.001 * 5 / 1.5
    expected = torch.tensor([[3 - ratio * 0.9, 4 - ratio * 1.2]])
    assert torch.allclose(layer.weight, expected, atol=1e-6)


def rates(schedule_of, total):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    schedule, found = make_schedule(optimizer, schedule_of, total), []
    for step in range(total):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_cosine_with_warmup():
    found = rates(recipe(warmup=0.1), 100)
    assert found[:11] == pytest.approx([0.5 * i / 10 for i in range(11)])
    assert found[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)) / 2)
    assert 0 < found[-1] < 0.001


def test_constant_schedule():
    assert rates(recipe(schedule="constant", warmup=0.0), 20) == pytest.approx([0.5] * 20)


def test_the_poly_schedule_of_the_segmentation_papers():
    found = rates(recipe(schedule="poly", warmup=0.0, lr=0.05), 9000)
    expected = {0: 0.05, 1: 0.049995, 4500: 0.0267943, 8999: 1.38087e-05}
    # the helper's optimiser begins at 0.5
    assert {t: found[t] / 10 for t in expected} == pytest.approx(expected, rel=1e-5)


def test_the_steps_of_ua_mt():
    found = [rate / 50 for rate in rates(recipe(schedule="steps", warmup=0.0), 6000)]
    expected = {0: 1e-2, 2499: 1e-2, 2500: 1e-3, 4999: 1e-3, 5000: 1e-4, 5999: 1e-4}
    assert {t: found[t] for t in expected} == pytest.approx(expected)


def test_the_rate_is_a_function_of_the_step():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    make_schedule(optimizer, RECIPE, 100).step_update(37)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates(RECIPE, 100)[37])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_drop_what_a_killed_run_wrote_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    first = Metrics(path, start=0)
    for step in (10, 20, 30):
        first.write(
            {"step": step, "loss": step / 10, "knn": 0.5} if step != 20 else {"step": step, "loss": 2.0}
        )
    with path.open("a") as file:
        file.write("3")  # a row cut short
    again = Metrics(path, start=20)
    again.write({"step": 30, "loss": 9.0})
    assert [(row["step"], row["loss"], row["knn"]) for row in rows(path)] == [
        ("10", "1", "0.5"),
        ("20", "2", ""),
        ("30", "9", ""),
    ]


def test_a_fresh_start_forgets_old_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    Metrics(path, start=0).write({"step": 1, "old": 1.0})
    Metrics(path, start=0).write({"step": 1, "new": 1.0})
    assert "old" not in rows(path)[0]


def test_checkpoints_come_back_and_execute_nothing(tmp_path):
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "last.pt"
    Checkpoint(7, net.state_dict(), optimizer.state_dict(), 0.25).save(path)
    back = Checkpoint.load(path)
    assert (back.step, back.probe) == (7, 0.25)
    assert torch.equal(back.method["weight"], net.weight)
    assert torch.equal(
        back.optimizer["state"][0]["momentum_buffer"], optimizer.state_dict()["state"][0]["momentum_buffer"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch executed",)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(TacitError, match="damaged"):
        Checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_damaged_checkpoints(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(TacitError, match=r"last\.pt is damaged") as error:
        Checkpoint.load(tmp_path / "last.pt")
    assert "\n" not in str(error.value)


def test_checkpoints_of_another_format(tmp_path):
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(TacitError, match="format 99"):
        Checkpoint.load(tmp_path / "last.pt")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half of the new" + b"!" * (1 // 0))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(TacitError, match=r"cannot write .*No space left"), replacing(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TacitError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", "x")


def test_run_settings_that_are_damaged(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(UsageError, match=r"run\.yaml is missing"):
        run.settings()
    run.settings_file.write_text("a: [")
    with pytest.raises(TacitError, match="damaged"):
        run.settings()
    run.settings_file.write_text("just words")
    with pytest.raises(TacitError, match="damaged"):
        run.settings()
