"""How averaged networks follow and how fast a weight rises, in runs of hundreds of steps and of a million."""

import copy
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, Spec
from tacit.encoders.card import attach_card
from tacit.methods.classification import mixmatch as mixmatch_module
from tacit.methods.classification.mixmatch import MixMatch
from tacit.methods.classification.supervised import Supervised
from tacit.methods.parts.teacher import HORIZON, follow, follow_buffers, frozen_copy, momentum_at
from tacit.methods.segmentation.mean_teacher_segmentation import MeanTeacherSegmentation
from tacit.rng import Rng

LONG = 2**20


def at(index, total):
    return Step(index, total, 0, 1)


@pytest.mark.parametrize(
    ("index", "total", "first", "momentum"),
    [
        (0, 600, 2, 1 / 2),
        (1, 600, 2, 2 / 3),
        (10, 600, 2, 11 / 12),
        (0, 600, 1, 0.0),
        (1, 600, 1, 1 / 2),
        (28, 600, 1, 28 / 29),  # the warm-up is still the least
        (29, 600, 1, 29 / 30),
        (30, 600, 1, 29 / 30),
        (599, 600, 2, 29 / 30),  # 5 % of 600 steps are 30
        (98, 20_000, 2, 0.99),
        (997, LONG, 2, 998 / 999),
        (998, LONG, 2, 0.999),
        (LONG - 1, LONG, 2, 0.999),
        (19_999, 20_000, 2, 0.999),  # 5 % are 1,000: the shortest run that reaches it
        (9_999, 10_000, 2, 0.998),
        (19, 20, 2, 0.0),  # too short for an average at all
        (0, 1, 2, 0.0),
    ],
)
def test_momentum_by_hand(index, total, first, momentum):
    assert momentum_at(at(index, total), 0.999, first=first) == pytest.approx(momentum, abs=1e-12)


def test_an_average_never_reaches_back_more_than_a_twentieth_of_the_run():
    assert HORIZON == 0.05
    found = [momentum_at(at(i, 600), 0.999) for i in range(600)]
    assert found == sorted(found)
    assert max(found) == found[-1] == 1 - 1 / 30
    assert found.index(1 - 1 / 30) == 28  # 1 / (28 + 2)


def test_momentum_never_exceeds_what_was_asked_for():
    assert max(momentum_at(at(i, LONG), 0.9) for i in range(100)) == 0.9
    assert momentum_at(at(5, 600), 1e-12) == 1e-12


def norm():
    """A layer whose statistics have moved."""
    layer = nn.BatchNorm1d(3)
    with torch.no_grad():
        layer.weight.uniform_()
        layer(torch.randn(8, 3) * 2 + 1)
    return layer


def test_buffers_are_averaged_and_counters_are_copied():
    torch.manual_seed(0)
    teacher, student = norm(), norm()
    student.num_batches_tracked.fill_(41)
    before, theirs = copy.deepcopy(teacher.state_dict()), copy.deepcopy(student.state_dict())
    follow_buffers(teacher, student, 0.75)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(teacher, name), 0.75 * before[name] + 0.25 * theirs[name])
    assert teacher.num_batches_tracked.item() == 41
    assert teacher.num_batches_tracked.dtype == torch.int64
    assert torch.equal(teacher.weight, before["weight"])
    assert all(torch.equal(value, theirs[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize(("momentum", "whose"), [(0.0, "student"), (1.0, "teacher")])
def test_buffers_at_the_limits(momentum, whose):
    torch.manual_seed(0)
    teacher, student = norm(), norm()
    expected = {"student": student, "teacher": teacher}[whose].running_mean.clone()
    follow_buffers(teacher, student, momentum)
    torch.testing.assert_close(teacher.running_mean, expected)


def test_parameters_are_averaged_and_buffers_stay():
    torch.manual_seed(0)
    student = norm()
    teacher = frozen_copy(norm())
    before, theirs = copy.deepcopy(teacher.state_dict()), student.weight.detach().clone()
    follow(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight, 0.75 * before["weight"] + 0.25 * theirs)
    assert torch.equal(teacher.running_mean, before["running_mean"])
    assert torch.equal(teacher.num_batches_tracked, before["num_batches_tracked"])
    assert torch.equal(student.weight, theirs)
    assert not any(p.requires_grad for p in teacher.parameters())


class Normed(nn.Module):
    """A linear map of the pixels with BatchNorm."""

    def __init__(self):
        super().__init__()
        self.map, self.norm = nn.Linear(12, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.map(x.flatten(1)))


def encoder():
    torch.manual_seed(0)
    return attach_card(Normed(), channels=3, size=2, num_features=4)


class Two(Source):
    """Two classes, no pictures."""

    def __init__(self):
        super().__init__(Spec("image", (3, 2, 2), ("a", "b")), [""] * 4, np.array([0, 1, 0, 1]))


def moved(method):
    """The method, after its student has jumped somewhere else in parameters and statistics."""
    method.prepare(Two())
    with torch.no_grad():
        for value in (*method.encoder.parameters(), *method.head.parameters()):
            value.add_(1.0)
        method.encoder.norm.running_mean.fill_(7.0)
        method.encoder.norm.running_var.fill_(3.0)
        method.encoder.norm.num_batches_tracked.fill_(5)
    return method


def test_after_a_constant_student_the_average_equals_it():
    method = moved(Supervised(encoder()))
    for i in range(600):
        method.after_step(at(i, 600))
    mine, theirs = method.average.state_dict(), method._network.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], msg=name)


def test_what_is_left_of_the_start_is_the_product_of_all_momenta():
    method = moved(Supervised(encoder()))
    start = method.average[0].map.weight.clone()
    for i in range(40):
        method.after_step(at(i, 600))
    # (1/2) (2/3) ... (28/29) = 1/29 after 28 steps, and 29/30 each from then on
    left = 1 / 29 * (29 / 30) ** 12
    assert left == pytest.approx(prod(momentum_at(at(i, 600), 0.999) for i in range(40)))
    torch.testing.assert_close(method.average[0].map.weight, start + 1 - left)
    torch.testing.assert_close(method.average[0].norm.running_mean, torch.full((4,), 7 * (1 - left)))
    torch.testing.assert_close(method.average[0].norm.running_var, torch.full((4,), 3 - 2 * left))
    assert method.average[0].norm.num_batches_tracked == 5


def test_an_average_follows_a_line_with_the_lag_of_its_horizon():
    """Of a student that moves by 1 a step, the average lies d / (1 - d) = 29 steps behind."""
    student, teacher = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    teacher.requires_grad_(False)
    with torch.no_grad():
        for i in range(600):
            student.weight.fill_(float(i))
            follow(teacher, student, momentum_at(at(i, 600), 0.999))
    assert student.weight.item() - teacher.weight.item() == pytest.approx(29, abs=0.01)


def test_a_teacher_of_masks_begins_as_the_student_and_keeps_its_statistics():
    class Student(MeanTeacherSegmentation):
        def __init__(self):
            nn.Module.__init__(self)
            self.encoder, self.head, self.ema = Normed(), nn.Linear(4, 2), 0.99
            self.teacher = frozen_copy(nn.ModuleList([Normed(), nn.Linear(4, 2)]))

    torch.manual_seed(0)
    method = Student()
    method.encoder.norm.running_mean.fill_(7.0)
    assert not torch.equal(method.teacher[0].map.weight, method.encoder.map.weight)
    method.after_step(at(0, 600))  # min(1 - 1 / (0 + 1), ...)
    assert torch.equal(method.teacher[0].map.weight, method.encoder.map.weight)
    assert torch.equal(method.teacher[1].bias, method.head.bias)
    assert torch.equal(method.teacher[0].norm.running_mean, torch.zeros(4))
    before = method.teacher[0].map.weight.clone()
    with torch.no_grad():
        method.encoder.map.weight.add_(1.0)
    method.after_step(at(1, 600))  # 1 - 1 / 2
    torch.testing.assert_close(method.teacher[0].map.weight, before + 0.5)
    method.after_step(at(599, 600))  # 1 - 1 / 30
    torch.testing.assert_close(method.teacher[0].map.weight, before + 1 - 0.5 * 29 / 30)


def mixmatch_weights(monkeypatch, indices, total, **options):
    """The weight of MixMatch's unlabelled term at these steps of so many."""
    monkeypatch.setattr(mixmatch_module, "probability_mse", lambda *_: torch.ones(()))
    method = MixMatch(encoder(), **options)
    method.prepare(Two())
    pixels, sizes = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.full((4, 2), 2.0)
    extra = {"true_size": sizes}
    data = Batch(
        Samples(pixels, torch.arange(4), extra=extra),
        Samples(pixels, torch.arange(4), target=torch.tensor([0, 1, 0, 1]), extra=extra),
    )
    views = method.views(data, Rng.of(0), at(0, total))
    return [method.losses(views, at(i, total))["mixmatch"].item() for i in indices]


@pytest.mark.parametrize("total", [100, 600, 5000, 40_960])
def test_the_weight_of_mixmatch_rises_by_steps_whatever_the_length(total, monkeypatch):
    steps = [0, 1, 50, total - 1] if total < 16384 else [0, 1, 8192, 16383, 16384, total - 1]
    found = mixmatch_weights(monkeypatch, steps, total)
    assert found == pytest.approx([100 * min(1, i / 16384) for i in steps], rel=1e-6)


def test_the_weight_of_mixmatch_in_a_longer_run_rises_for_two_fifths_of_it(monkeypatch):
    steps = [0, 16384, 20_000, 40_000, 99_999]
    found = mixmatch_weights(monkeypatch, steps, 100_000)
    assert found == pytest.approx([0, 100 * 16384 / 40_000, 50, 100, 100], rel=1e-6)


@pytest.mark.parametrize("total", [600, LONG])
def test_the_weight_of_mixmatch_as_published(total, monkeypatch):
    steps = [0, 1, 5, 9, 10, 300, total // 128, total // 64, total - 1]
    for options in (
        {"ramp": 1 / 64, "ramp_steps": 0},
        {k: MixMatch.published[k] for k in ("ramp", "ramp_steps")},
    ):
        found = mixmatch_weights(monkeypatch, steps, total, **options)
        assert found == pytest.approx([100 * min(1, 64 * i / total) for i in steps], rel=1e-6)


def test_the_weight_of_mixmatch_without_a_ramp(monkeypatch):
    assert mixmatch_weights(monkeypatch, [0, 599], 600, ramp=0.0, ramp_steps=0, weight=3.0) == [3.0, 3.0]
