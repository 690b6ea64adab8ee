from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.data.budget import draw_budget, draw_masks, group_split
from tacit.errors import UsageError
from tacit.rng import Rng


def labels_of(*counts: int, unlabelled: int = 0) -> np.ndarray:
    return np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])


def draw(labels, seed=0, **options):
    return draw_budget(labels, np.arange(len(labels)), Rng.of(seed), **options)


def count(labels, part):
    return np.bincount(labels[part], minlength=labels.max() + 1).tolist()


def test_so_many_of_each_class_and_a_quarter_on_top():
    labels = labels_of(30, 50, 20, unlabelled=100)
    budget = draw(labels, per_class=10)
    assert count(labels, budget.labelled) == [10, 10, 10]
    assert count(labels, budget.held_out) == [3, 3, 3]  # ceil(2.5)
    assert not np.intersect1d(budget.labelled, budget.held_out).size
    # the pool is everything but what is held out: labelled ones, those that keep their label, unlabelled ones
    assert np.array_equal(budget.pool, np.setdiff1d(np.arange(200), budget.held_out))
    assert budget.notes == ()


def test_the_draw_is_a_function_of_the_seed():
    labels = labels_of(30, 30)
    first, again, other = (draw(labels, seed, per_class=5) for seed in (1, 1, 2))
    assert np.array_equal(first.labelled, again.labelled)
    assert np.array_equal(first.held_out, again.held_out)
    assert not np.array_equal(first.labelled, other.labelled)


def test_a_class_that_is_too_small_lends_all_to_learning_and_is_named():
    labels = labels_of(3, 40)
    budget = draw(labels, per_class=10, classes=("rare", "common"))
    assert count(labels, budget.labelled) == [3, 10]
    assert count(labels, budget.held_out) == [0, 3]
    assert budget.notes == ("class 'rare' contributes 3 label(s), 10 were asked for: all it has",)


def test_without_a_budget_a_fifth_is_held_out():
    labels = labels_of(40, 20)
    budget = draw(labels)
    assert count(labels, budget.labelled) == [32, 16]
    assert count(labels, budget.held_out) == [8, 4]
    assert count(labels, draw(labels, held_out=0.0).labelled) == [40, 20]


def test_a_fraction_is_of_each_class():
    labels = labels_of(100, 40)
    budget = draw(labels, fraction=0.1)
    assert count(labels, budget.labelled) == [10, 4]
    assert count(labels, budget.held_out) == [3, 1]


def test_a_validation_split_is_what_is_held_out():
    labels = labels_of(20, 20, unlabelled=5)
    train, validation = np.r_[0:15, 20:35, 40:45], np.r_[15:20, 35:40]
    budget = draw_budget(labels, train, Rng.of(0), per_class=6, validation=validation)
    assert np.array_equal(budget.held_out, validation)
    assert np.array_equal(budget.pool, train)
    assert count(labels, budget.labelled) == [6, 6]


def test_no_unlabelled_sample_is_no_problem():
    labels = labels_of(6, 6)
    budget = draw(labels, per_class=6)
    assert np.array_equal(budget.labelled, budget.pool)
    assert len(budget.held_out) == 0


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (labels_of(unlabelled=9), {}, "no labels to learn from"),
        (labels_of(9), {"classes": ("cat",)}, "all 9 labels are 'cat'"),
        (labels_of(9, 9), {"per_class": 0}, "labels_per_class must be at least 1"),
        (labels_of(9, 9), {"fraction": 1.5}, "label_fraction must lie"),
        (labels_of(9, 9), {"per_class": 2, "fraction": 0.5}, "give one of them"),
        (labels_of(9, 9), {"held_out": 2.0}, "held_out must lie in [0, 1]"),
    ],
)
def test_what_is_no_budget_is_one_line(labels, options, says):
    with pytest.raises(UsageError) as caught:
        draw(np.asarray(labels, np.int64), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 11)), min_size=12, max_size=80),
    st.one_of(st.none(), st.integers(1, 12)),
    st.integers(0, 5),
)
def test_no_group_is_on_both_sides(samples, per_class, seed):
    labels, groups = (np.array(column, np.int64) for column in zip(*samples, strict=True))
    try:
        budget = draw(labels, seed, per_class=per_class, groups=groups)
    except UsageError:
        return
    assert not np.intersect1d(groups[budget.held_out], groups[budget.pool]).size
    assert np.isin(budget.labelled, budget.pool).all()
    assert (labels[budget.labelled] >= 0).all()
    if per_class is not None:
        assert max(count(labels, budget.labelled)) <= per_class
        assert max(count(labels, budget.held_out), default=0) <= ceil(per_class / 4)


def test_groups_leave_enough_for_both_sides():
    groups = np.repeat(np.arange(40), 5)  # 40 patients of one class each
    labels = (groups % 2).astype(np.int64)
    budget = draw(labels, per_class=20, groups=groups)
    assert count(labels, budget.labelled) == [20, 20]
    assert count(labels, budget.held_out) == [5, 5]
    # the held-out groups are gone from the pool, with all their samples
    assert len(budget.pool) == 200 - 5 * len(np.unique(groups[budget.held_out]))


def test_groups_of_a_validation_split_are_not_learned_from():
    labels, groups = labels_of(20, 20), np.arange(40) // 4
    train, validation = np.setdiff1d(np.arange(40), [0, 21]), np.array([0, 21])
    budget = draw_budget(labels, train, Rng.of(0), validation=validation, groups=groups)
    assert not np.intersect1d(groups[validation], groups[budget.pool]).size
    assert not np.intersect1d(groups[validation], groups[budget.labelled]).size
    assert budget.notes == ("2 group(s) of the validation split are left out of learning",)


def test_group_split_keeps_groups_whole_and_shares_alike():
    draw_ = np.random.default_rng(0)
    groups = draw_.integers(0, 80, 1000)
    labels = draw_.integers(0, 3, 1000)
    labels[:50] = -1
    parts = group_split(labels, groups, (0.25, 0.75), Rng.of(0))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(50, 1000))
    assert not np.intersect1d(groups[parts[0]], groups[parts[1]]).size
    shares = [count(labels, parts[0])[c] / (labels == c).sum() for c in range(3)]
    assert shares == pytest.approx([0.25] * 3, abs=0.03)


def test_group_split_without_groups_is_the_stratified_one():
    labels = labels_of(40, 8)
    first, second = group_split(labels, None, (0.25, 0.75), Rng.of(0))
    assert count(labels, first) == [10, 2]
    assert count(labels, second) == [30, 6]


MASKS = np.array([0, 0, -1, 0, 0, 0, -1, 0, 0, 0])  # eight of ten volumes have one


def draw_of(count=None, seed=0, within=None, **kwargs):
    within = np.arange(10) if within is None else within
    return draw_masks(MASKS, within, Rng.of(seed), count=count, **kwargs)


def test_so_many_masks_are_learned_from_and_a_quarter_as_many_held_out():
    budget = draw_of(4)
    assert len(budget.labelled) == 4
    assert len(budget.held_out) == 1
    assert set(budget.pool) == set(range(10)) - set(budget.held_out)
    assert (MASKS[budget.labelled] == 0).all()
    assert set(budget.labelled) <= set(budget.pool)
    again, other = draw_of(4), draw_of(4, seed=1)
    assert (budget.labelled == again.labelled).all()
    assert (budget.labelled != other.labelled).any()


def test_all_masks_but_a_share_or_a_fraction_of_them():
    everything = draw_of()
    assert (len(everything.labelled), len(everything.held_out)) == (6, 2)
    half = draw_of(fraction=0.5, held_out=0.0)
    assert (len(half.labelled), len(half.held_out), len(half.pool)) == (4, 0, 10)


def test_more_masks_than_there_are_is_said():
    budget = draw_of(20)
    assert len(budget.labelled) == 8
    assert len(budget.held_out) == 0
    assert "20 were asked for: all there are" in budget.notes[0]


@given(st.integers(0, 200), st.integers(1, 6))
def test_no_patient_is_on_both_sides_of_a_split_of_masks(seed, count):
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4])
    budget = draw_of(count, seed, groups=groups)
    assert not set(groups[budget.labelled]) & set(groups[budget.held_out])
    assert not set(groups[budget.pool]) & set(groups[budget.held_out])
    assert len(budget.labelled) == count


def test_a_validation_split_holds_out_its_masks():
    budget = draw_of(3, within=np.arange(6), validation=np.arange(6, 10))
    assert budget.held_out.tolist() == [7, 8, 9]
    assert len(budget.labelled) == 3
    assert budget.pool.tolist() == [0, 1, 2, 3, 4, 5]


def test_groups_that_validate_lend_no_label():
    labels, groups = np.array([0, -1, -1, 0, 0]), np.array([1, 2, 3, 1, 4])
    parts = {"validation": np.array([3]), "groups": groups}
    budget = draw_masks(labels, np.array([0, 1, 2, 4]), Rng.of(0), count=1, **parts)
    assert budget.labelled.tolist() == [4]
    assert budget.pool.tolist() == [1, 2, 4]
    with pytest.raises(UsageError, match="only of groups that validate"):
        draw_masks(labels, np.array([0, 1, 2]), Rng.of(0), count=1, **parts)


def test_masks_that_cannot_be_drawn():
    with pytest.raises(UsageError, match="no masks to learn from"):
        draw_masks(np.full(3, -1), np.arange(3), Rng.of(0))
    with pytest.raises(UsageError, match="labelled must be at least 1, not 0"):
        draw_of(0)
    with pytest.raises(UsageError, match="labelled and label_fraction are two ways"):
        draw_of(2, fraction=0.5)
