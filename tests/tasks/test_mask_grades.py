"""Measures of masks: by hand, against brute force, and what is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import UsageError
from tacit.tasks.masks.grading import EmptyCounts, grade_mask, grade_masks

few = settings(max_examples=60, deadline=None)
nan = float("nan")


def line(text: str) -> np.ndarray:
    """One row of voxels in a plane, so that each of them is surface."""
    return np.array([[int(c) for c in text]])


def slow_surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    found = []
    for place in map(tuple, np.argwhere(mask)):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                next_to = list(place)
                next_to[axis] += step
                outside = not 0 <= next_to[axis] < mask.shape[axis]
                if place not in found and (outside or not mask[tuple(next_to)]):
                    found.append(place)
    return found


def slow_distances(a: np.ndarray, b: np.ndarray, spacing) -> list[float]:
    others = slow_surface(b)
    return [
        min(math.dist(np.multiply(one, spacing), np.multiply(other, spacing)) for other in others)
        for one in slow_surface(a)
    ]


def slow_percentile(values: list[float]) -> float:
    values = sorted(values)
    place = 0.95 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def test_by_hand():
    grade = grade_mask(line("011110"), line("001111"))
    assert grade.dice == pytest.approx(6 / 8)
    assert grade.jaccard == pytest.approx(3 / 5)
    # from 1..4 to 2..5: 1 0 0 0, and back 0 0 0 1; sorted, place 0.95 * 7 = 6.65 lies between 1 and 1
    assert grade.asd == pytest.approx(0.25)
    assert grade.hd95 == pytest.approx(1)
    assert grade.empty == ""
    # from {0, 9} to {0, 1}: 0 8, and back 0 1
    grade = grade_mask(line("1000000001"), line("1100000000"))
    assert grade.dice == pytest.approx(2 / 4)
    assert grade.asd == pytest.approx((0 + 8) / 2)
    assert grade.hd95 == pytest.approx(slow_percentile([0, 8, 0, 1]))
    assert grade.hd95 == pytest.approx(1 + 0.85 * 7)


def test_asd_goes_from_the_prediction_to_the_reference():
    few_voxels, more = line("1000000"), line("1000001")
    assert grade_mask(few_voxels, more).asd == 0
    assert grade_mask(more, few_voxels).asd == 3
    assert grade_mask(few_voxels, more).hd95 == grade_mask(more, few_voxels).hd95


def test_a_solid_cube_and_the_same_one_voxel_further():
    a, b = np.zeros((12, 12, 12), int), np.zeros((12, 12, 12), int)
    a[2:7, 2:7, 2:7] = b[3:8, 2:7, 2:7] = 1
    grade = grade_mask(a, b)
    assert grade.dice == pytest.approx(0.8)
    assert grade.jaccard == pytest.approx(2 / 3)
    assert grade.hd95 == 1
    assert grade.asd == pytest.approx(np.mean(slow_distances(a, b, (1, 1, 1))))
    millimetres = grade_mask(a, b, (3.0, 1.0, 0.5))
    assert millimetres.dice == grade.dice
    assert millimetres.hd95 == 3
    assert millimetres.asd == pytest.approx(np.mean(slow_distances(a, b, (3.0, 1.0, 0.5))))


@few
@given(
    st.integers(0, 10**6),
    st.sampled_from([(9,), (5, 6), (4, 3, 5), (1, 4, 4)]),
    st.sampled_from([0.1, 0.5, 0.95]),
    st.booleans(),
)
def test_brute_force(seed, shape, filled, scaled):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((2, *shape)) < filled).astype(np.int64)
    spacing = tuple(0.5 + rng.random(len(shape))) if scaled else None
    grade = grade_mask(a, b, spacing)
    of_a, of_b = set(map(tuple, np.argwhere(a))), set(map(tuple, np.argwhere(b)))
    if not of_a or not of_b:
        assert math.isnan(grade.hd95)
        assert math.isnan(grade.asd)
        return
    assert grade.dice == pytest.approx(2 * len(of_a & of_b) / (len(of_a) + len(of_b)))
    assert grade.jaccard == pytest.approx(len(of_a & of_b) / len(of_a | of_b))
    step = spacing or (1,) * len(shape)
    there, back = slow_distances(a, b, step), slow_distances(b, a, step)
    assert grade.asd == pytest.approx(sum(there) / len(there), abs=1e-12)
    assert grade.hd95 == pytest.approx(slow_percentile(there + back), abs=1e-12)
    # what lies around both objects changes nothing, if they do not touch the border
    padded = [np.pad(m, 2) for m in (a, b)]
    assert grade_mask(*padded, spacing) == grade


@pytest.mark.parametrize("spacing", [None, (0.7, 2.0, 1.3)])
def test_larger_objects_and_a_far_voxel(spacing):
    away = np.sqrt(((np.indices((15, 15, 15)) - 7) ** 2).sum(0))
    a, b = away < 4, np.roll(away < 4.6, (2, 1, 0), (0, 1, 2))
    b[0, 0, 0] = True
    step = spacing or (1, 1, 1)
    there, back = slow_distances(a, b, step), slow_distances(b, a, step)
    grade = grade_mask(a, b, spacing)
    assert grade.asd == pytest.approx(np.mean(there), rel=1e-12)
    assert grade.hd95 == pytest.approx(slow_percentile(there + back), rel=1e-12)


def test_what_is_empty_is_never_perfect():
    some, none = line("0110"), line("0000")
    both = grade_mask(none, none)
    assert both.empty == "both"
    assert all(math.isnan(value) for value in both[:4])
    for a, b, which in ((none, some, "prediction"), (some, none, "reference")):
        grade = grade_mask(a, b)
        assert grade[:2] == (0, 0)
        assert math.isnan(grade.hd95)
        assert math.isnan(grade.asd)
        assert grade.empty == which
    assert grade_mask(some, some) == (1, 1, 0, 0, "")


def test_grades_of_cases():
    cases = [
        (line("0110022"), line("0110022")),
        (line("0110000"), line("0011022")),
        (line("0000002"), line("0110000")),
        (line("1000000"), line("1000000")),
    ]
    grades = grade_masks(iter(cases), ["background", "liver", "spleen"])
    assert grades.classes == ("liver", "spleen")
    assert grades.unit == "voxels"
    assert len(grades.cases) == 4
    assert grades.cases[1][0] == grade_mask(cases[1][0] == 1, cases[1][1] == 1)
    assert grades.cases[1][1].empty == "prediction"
    assert grades.dice == pytest.approx(((1 + 0.5 + 0 + 1) / 4, (1 + 0 + 0) / 3))
    assert grades.jaccard == pytest.approx(((1 + 1 / 3 + 0 + 1) / 4, 1 / 3))
    assert grades.hd95 == pytest.approx(((0 + 1 + 0) / 3, 0))
    assert grades.asd == pytest.approx(((0 + 0.5 + 0) / 3, 0))
    assert grades.empty == (EmptyCounts(1, 0, 0), EmptyCounts(1, 1, 1))
    text = str(grades).splitlines()
    assert [row.split() for row in text] == [
        [
            "class",
            "Dice",
            "%",
            "[95",
            "%]",
            "Jaccard",
            "%",
            "HD95",
            "voxels",
            "ASD",
            "voxels",
            "not",
            "found",
            "invented",
            "absent",
        ],
        ["liver", "62.5", "[0.0,", "100.0]", "58.3", "0.33", "0.17", "1", "0", "0"],
        ["spleen", "33.3", "[0.0,", "100.0]", "33.3", "0.00", "0.00", "1", "1", "1"],
        ["mean", "47.9", "45.8", "0.17", "0.08"],
        ["(4", "cases)"],
    ]
    assert len({len(row) for row in text[:3]}) == 1


def test_the_interval_of_dice_is_students_over_cases():
    cases = [(line("0111"), line("0111")), (line("0011"), line("0111")), (line("0001"), line("0111"))]
    text = str(grade_masks(cases, ["", "it"]))  # 1, 0.8 and 0.5: sd 0.2517, t(2) = 4.303
    half = 4.30265 * 25.16611 / 3**0.5
    assert f"76.7  [{76.66667 - half:.1f}, 100.0]" in text


def test_a_class_that_is_nowhere_has_no_grade():
    grades = grade_masks([(line("01"), line("01"))], ["", "here", "nowhere"], (2.0, 1.0))
    assert grades.unit == "mm"
    assert math.isnan(grades.dice[1])
    assert "nowhere       -" in str(grades)
    assert "nan" not in str(grades)
    assert "mean      100.0" in str(grades)
    assert grades.mean("dice") == 1.0
    assert "mean" not in str(grade_masks([(line("01"), line("01"))], ["", "here"]))


@pytest.mark.filterwarnings("error")
def test_what_was_never_found_has_a_dice_of_0_and_no_distance():
    grades = grade_masks([(line("00"), line("01"))] * 2, ["", "one"])
    assert grades.mean("dice") == 0.0
    assert math.isnan(grades.mean("hd95"))


def test_spacing_of_each_case_and_tensors():
    a, b = torch.tensor([[1, 0, 0, 1]]), torch.tensor([[1, 0, 0, 0]], dtype=torch.uint8)
    grades = grade_masks([(a, b, (1.0, 2.0)), (a, b, (1.0, 4.0))], ["", "one"], spacing=(9.0, 9.0))
    assert [case[0].asd for case in grades.cases] == [3, 6]
    assert grades.asd == (4.5,)
    assert grades.unit == "mm"
    assert grade_mask(a.bool(), b.bool()).asd == 1.5


def test_wrong_use():
    one = line("0120")
    with pytest.raises(UsageError, match="no masks were given"):
        grade_masks([], ["", "one"])
    with pytest.raises(UsageError, match="one class at least"):
        grade_masks([(one, one)], ["background"])
    with pytest.raises(UsageError, match=r"case 1: masks must lie in 0 .. 1, this one goes from 0 to 2"):
        grade_masks([(one > 0, one > 0), (one > 0, one)], ["", "one"])
    with pytest.raises(UsageError, match="goes from -1"):
        grade_masks([(one, one - 1)], ["", "one", "two", "three"])
    with pytest.raises(UsageError, match="case 0: masks must be whole numbers, not float64"):
        grade_masks([(one.astype(float), one)], ["", "one", "two"])
    with pytest.raises(UsageError, match=r"one shape, got \(1, 4\) and \(1, 3\)"):
        grade_mask(one, one[:, :3])
    for spacing in ((1.0,), (1.0, 0.0), (1.0, nan)):
        with pytest.raises(UsageError, match="spacing must be 2 numbers above 0"):
            grade_mask(one, one, spacing)
    with pytest.raises(UsageError, match="give one for all, or for none"):
        grade_masks([(one, one), (one, one, (1.0, 1.0))], ["", "one", "two"])


def test_distances_of_sheared_axes_are_those_in_space():
    """Axes of 1 mm and of (3, 4) mm: from (0, 0) to (0, 2) it is 10 mm, and to (-6, 2) 8 mm straight up."""
    a, b = np.zeros((8, 3), bool), np.zeros((8, 3), bool)
    a[6, 0] = True
    b[6, 2] = True
    steps = np.array([[1.0, 3.0], [0.0, 4.0]])
    assert grade_mask(a, b, steps).asd == pytest.approx(10)
    b[0, 2] = True
    grade = grade_mask(a, b, steps)
    assert grade.asd == pytest.approx(8)
    assert grade.hd95 == pytest.approx(9.8)  # of 8, 8 and 10
    assert grade_mask(a, b, (1.0, 5.0)).asd == pytest.approx(10)


def test_a_matrix_of_right_angles_is_its_spacing():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 6, 5, 4)) > 0.6
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag([1.5, 1.0, 2.5])
    along, turned = grade_mask(a, b, (1.5, 1.0, 2.5)), grade_mask(a, b, turned)
    assert (turned.hd95, turned.asd) == pytest.approx((along.hd95, along.asd))
    with pytest.raises(UsageError, match="a regular 3 x 3 matrix"):
        grade_mask(a, b, np.zeros((3, 3)))
