"""Self-distillation: hand-worked numbers, pairing, centres, gradients, limits and wrong use."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from tacit.errors import UsageError
from tacit.losses.distillation import (
    distillation,
    inter_patient,
    intra,
    teacher_temperature_at,
    update_centre,
)
from tacit.rng import Rng

NONE = torch.zeros(1, 2, dtype=torch.float64)


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# two patients: teacher (Q, K) and student (Q, K), two prototypes
TEACHER, STUDENT = rows((0.02, 0.0), (0.0, 0.01)), rows((0.1, 0.0), (0.0, 0.2))


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=Rng.of(seed)("test").torch(), dtype=torch.float64)


def slow(
    teacher: list[float], student: list[float], centre: list[float], tau_t: float, tau_s: float
) -> float:
    powers = [math.exp((z - c) / tau_t) for z, c in zip(teacher, centre, strict=True)]
    p = [x / sum(powers) for x in powers]
    total = sum(math.exp(z / tau_s) for z in student)
    return -sum(a * (z / tau_s - math.log(total)) for a, z in zip(p, student, strict=True))


def test_the_hand_example_between_patients():
    assert distillation(TEACHER[:1], STUDENT[1:], NONE).item() == pytest.approx(1.8885, abs=5e-5)
    assert distillation(TEACHER[1:], STUDENT[:1], NONE).item() == pytest.approx(1.0443, abs=5e-5)
    assert inter_patient(TEACHER, STUDENT, NONE).item() == pytest.approx(1.4664, abs=5e-5)


def test_the_hand_example_within_a_crop():
    found = intra(TEACHER[:, None], STUDENT[:, None], NONE[None])
    assert found.item() == pytest.approx(0.5486, abs=5e-5)


def test_a_uniform_student_pays_the_logarithm_of_the_prototypes():
    teacher = noise(4, 3, 512)
    found = distillation(teacher, torch.full_like(teacher, 0.7), torch.zeros(512, dtype=torch.float64))
    torch.testing.assert_close(found, torch.full((4, 3), 6.2383, dtype=torch.float64), atol=5e-5, rtol=0)


def test_a_centre_equal_to_the_teacher_makes_it_uniform():
    assert distillation(TEACHER[:1], STUDENT[:1], NONE).item() == pytest.approx(0.4325, abs=5e-5)
    centred = distillation(TEACHER[:1], STUDENT[:1], TEACHER[:1])
    assert centred.item() == pytest.approx(0.8133, abs=5e-5)


def test_the_centre_moves_by_a_tenth():
    assert update_centre(torch.zeros(1, 3), torch.full((4, 3), 2.0)).tolist() == [[pytest.approx(0.2)] * 3]
    tokens = torch.arange(24.0).view(2, 4, 3)
    found = update_centre(torch.ones(1, 1, 3), tokens, 0.75)
    expected = 0.75 + 0.25 * tokens.mean((0, 1))
    torch.testing.assert_close(found, expected[None, None])
    assert torch.equal(update_centre(found, tokens, 1.0), found)


@pytest.mark.parametrize(("tau_t", "tau_s"), [(0.01, 0.1), (0.07, 0.3), (1.0, 1.0)])
def test_it_is_the_slow_sum(tau_t, tau_s):
    teacher, student, centre = (noise(5, 7, seed=s, scale=0.1) for s in (1, 2, 3))
    found = distillation(teacher, student, centre[:1], teacher_temperature=tau_t, student_temperature=tau_s)
    expected = [
        slow(t, s, centre[0].tolist(), tau_t, tau_s)
        for t, s in zip(teacher.tolist(), student.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-10)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = update_centre(torch.ones(1, 1, 5), noise(4, 3, 5)[2 * rank : 2 * rank + 2])
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_the_centre_is_that_of_all_processes(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    expected = update_centre(torch.ones(1, 1, 5), noise(4, 3, 5))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)


def swapped(x: Tensor) -> Tensor:
    return torch.cat([*reversed(x.chunk(2))])


def test_exchanging_queries_and_keys_changes_nothing():
    teacher, student = noise(6, 5, seed=1), noise(6, 5, seed=2)
    centre = noise(1, 5, seed=3, scale=0.01)
    for loss, t, s in ((inter_patient, teacher, student), (intra, teacher[:, None], student[:, None])):
        expected = loss(t, s, centre).item()
        assert loss(swapped(t), swapped(s), centre).item() == pytest.approx(expected, rel=1e-13)
        assert loss(swapped(t), s, centre).item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("pair", range(6))
def test_who_teaches_whom(pair):
    """Row i of the student gets gradient that depends on the other crop's teacher row, or on its own."""
    teacher, student, other = noise(6, 5, seed=1), noise(6, 5, seed=2).requires_grad_(), noise(1, 5, seed=4)
    changed = teacher.clone()
    changed[pair] = other
    partner = (pair + 3) % 6
    for loss, moved in ((inter_patient, partner), (intra, pair)):
        shape = (lambda x: x) if loss is inter_patient else (lambda x: x[:, None])
        before, after = (
            torch.autograd.grad(loss(shape(t), shape(student), NONE[:, :1]), student)[0]
            for t in (teacher, changed)
        )
        differs = ((before - after).abs().sum(1) > 1e-9).nonzero()[:, 0].tolist()
        assert differs == [moved]


def test_tokens_are_averaged_within_and_over_crops():
    teacher, student, centre = noise(4, 6, 5, seed=1), noise(4, 6, 5, seed=2), noise(1, 1, 5, seed=3)
    each = distillation(teacher, student, centre)
    assert each.shape == (4, 6)
    query, key = each[:2].mean(), each[2:].mean()
    assert intra(teacher, student, centre).item() == pytest.approx((query + key).item() / 2, rel=1e-13)


def test_gradient_reaches_the_student_only():
    teacher, student = (noise(4, 5, seed=s, scale=0.1).requires_grad_() for s in (1, 2))
    centre = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    loss = inter_patient(teacher, student, centre)
    found = torch.autograd.grad(loss, (teacher, student, centre), allow_unused=True)
    assert found[0] is None
    assert found[2] is None
    assert found[1].abs().min() > 0
    assert torch.autograd.gradcheck(lambda s: inter_patient(teacher, s, centre), student)
    assert torch.autograd.gradcheck(lambda s: intra(teacher[:, None], s[:, None], centre), student)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(half):
    teacher, student = (noise(4, 5, seed=s).to(half) for s in (1, 2))
    exact = inter_patient(teacher.double(), student.double(), torch.zeros(1, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = inter_patient(teacher, student, torch.zeros(1, 5))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_sharp_teachers_give_finite_numbers():
    teacher, student = noise(4, 5, scale=1e4), noise(4, 5, seed=1, scale=1e4).requires_grad_()
    loss = inter_patient(teacher, student, torch.zeros(1, 5))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_the_teachers_temperature_rises_for_thirty_epochs():
    found = [teacher_temperature_at(e, 0.008, 0.01, 30) for e in range(40)]
    assert found[0] == 0.008
    assert found[29:] == pytest.approx([0.01] * 11)
    steps = [b - a for a, b in pairwise(found[:30])]
    assert steps == pytest.approx([0.002 / 29] * 29)
    assert teacher_temperature_at(0, 0.008, 0.01, 0) == 0.01


def test_wrong_use_is_one_line():
    with pytest.raises(UsageError, match=r"one shape \(\.\.\., P\), got \(2, 2\) and \(2, 3\)"):
        distillation(TEACHER, noise(2, 3), NONE)
    with pytest.raises(UsageError, match="the student's temperature must be above 0, got 0"):
        distillation(TEACHER, STUDENT, NONE, student_temperature=0)
    with pytest.raises(UsageError, match=r"query crops first, got \(3, 2\)"):
        inter_patient(noise(3, 2), noise(3, 2), NONE)
    with pytest.raises(UsageError, match=r"query crops first, got \(0, 4, 2\)"):
        intra(noise(0, 4, 2), noise(0, 4, 2), NONE)
    with pytest.raises(UsageError, match=r"goes from 0 to 0\.01"):
        teacher_temperature_at(3, 0, 0.01, 30)
