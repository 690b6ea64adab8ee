import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.data.value_budget import draw_values, value_split
from tacit.errors import UsageError
from tacit.rng import Rng


def numbers(n, unlabelled=0, seed=0):
    """Skewed values in random order, then unlabelled ones."""
    drawn = np.random.default_rng(seed).lognormal(size=n)
    return np.concatenate([drawn, np.full(unlabelled, np.nan)])


def draw(values, seed=0, **options):
    return draw_values(values, np.arange(len(values)), Rng.of(seed), **options)


def parts(values, chosen, count):
    """How many of those chosen lie in each of `count` equal parts of the sorted known values."""
    order = np.argsort(np.argsort(values[~np.isnan(values)]))
    return np.bincount(order[chosen] * count // len(order), minlength=count).tolist()


def test_so_many_are_learned_from_and_a_quarter_on_top():
    values = numbers(200, unlabelled=50)
    budget = draw(values, count=40)
    assert (len(budget.labelled), len(budget.held_out)) == (40, 10)
    assert not np.intersect1d(budget.labelled, budget.held_out).size
    assert not np.isnan(values[np.concatenate([budget.labelled, budget.held_out])]).any()
    assert np.array_equal(budget.pool, np.setdiff1d(np.arange(250), budget.held_out))
    assert budget.notes == ()


@pytest.mark.parametrize("seed", range(5))
def test_every_part_of_the_values_gives_the_same(seed):
    values = numbers(200, seed=seed)
    budget = draw(values, seed, count=40)
    assert parts(values, budget.labelled, 10) == [4] * 10
    assert parts(values, budget.held_out, 10) == [1] * 10
    few = draw(values, seed, count=4)
    assert parts(values, few.labelled, 4) == [1] * 4
    some = parts(values, draw(values, seed, count=25).labelled, 10)
    assert sorted(some) == [2] * 5 + [3] * 5


def test_without_a_budget_all_are_used():
    values = numbers(100, unlabelled=3)
    budget = draw(values)
    assert (len(budget.labelled), len(budget.held_out)) == (80, 20)
    assert len(draw(values, fraction=0.5).labelled) == 50
    everything = draw(values, held_out=0.0)
    assert len(everything.labelled) == 100
    assert len(everything.held_out) == 0


def test_the_draw_is_a_function_of_the_seed():
    values = numbers(100)
    first, again, other = (draw(values, seed, count=20) for seed in (1, 1, 2))
    assert np.array_equal(first.labelled, again.labelled)
    assert np.array_equal(first.held_out, again.held_out)
    assert not np.array_equal(first.labelled, other.labelled)


def test_equal_values_are_drawn_at_random():
    values = np.repeat([0.0, 1.0], 50)
    found = np.concatenate([draw(values, seed, count=10).labelled for seed in range(40)])
    assert (values[found] == 1).mean() == 0.5
    assert len(np.unique(found)) > 90  # 400 draws leave out a sample with probability 0.9 ** 40 = 1.5 %


def test_more_values_than_there_are():
    budget = draw(numbers(10), count=50)
    assert len(budget.labelled) == 10
    assert budget.notes == (
        "10 value(s) are learned from, 50 were asked for: all there are",
        "no value is left to hold out",
    )


def test_a_validation_split_is_what_is_held_out():
    values = numbers(40, unlabelled=10)
    within, validation = np.arange(0, 30), np.arange(30, 50)
    budget = draw_values(values, within, Rng.of(0), validation=validation)
    assert budget.labelled.tolist() == list(range(30))
    assert budget.held_out.tolist() == list(range(30, 40))
    groups = np.arange(50)
    groups[35] = 3
    budget = draw_values(values, within, Rng.of(0), validation=validation, groups=groups)
    assert 3 not in budget.labelled
    assert 3 not in budget.pool
    assert budget.notes == ("1 group(s) of the validation split are left out of learning",)


def test_one_group_has_nothing_to_hold_out():
    budget = draw(numbers(20), groups=np.zeros(20, np.int64))
    assert (len(budget.labelled), len(budget.held_out)) == (20, 0)
    assert budget.notes == ("no value of another group is left to hold out",)
    two = draw(numbers(20), groups=np.repeat([0, 1], [5, 15]))
    assert (len(two.labelled), len(two.held_out)) in [(5, 2), (15, 4)]
    assert two.notes == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 60), st.integers(2, 12), st.integers(2, 60), st.integers(0, 1000), st.booleans())
def test_no_group_is_on_both_sides(n, group_count, count, seed, unbudgeted):
    groups = np.random.default_rng(seed).integers(0, group_count, n)
    values = numbers(n, seed=seed)
    try:
        budget = draw(values, seed, groups=groups, count=None if unbudgeted else count)
    except UsageError:  # of one group with one value, say
        return
    assert not np.intersect1d(groups[budget.labelled], groups[budget.held_out]).size
    assert not np.intersect1d(groups[budget.pool], groups[budget.held_out]).size
    if unbudgeted:
        assert (len(budget.held_out) > 0) == (len(np.unique(groups)) > 1)
        learned = np.isin(groups, groups[budget.labelled])
        assert np.array_equal(np.flatnonzero(learned), budget.labelled)  # whole groups
    else:
        assert len(budget.labelled) == min(count, n)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_spread_over_the_values(seed):
    groups = np.repeat(np.arange(40), 5)
    values = np.random.default_rng(seed).normal(size=40)[groups]
    budget = draw(values, seed, groups=groups, count=50)
    drawn = np.unique(groups[budget.labelled])
    assert len(drawn) == 10
    assert parts(values[::5], drawn, 10) == [1] * 10
    assert budget.notes == (
        "values are the same for all samples of a group: the 10 groups count, not the 50 samples",
    )
    assert draw(numbers(200), seed, groups=groups, count=50).notes == ()
    assert draw(numbers(40), seed, groups=np.arange(40), count=20).notes == ()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.full(9, np.nan), {}, "no values to learn from .*: name a CSV with --values"),
        (np.array([1, 2, 3, np.nan]), {}, r"have 3 value\(s\) to learn from, and 4 are needed"),
        (np.full(9, 2.5), {}, "all 9 values are 2.5, so there is nothing to learn"),
        (np.arange(9.0), {"count": 1}, r"the 1 value\(s\) drawn to learn from are all .: learn from more"),
        (np.arange(9.0), {"count": 3, "fraction": 0.5}, "labelled and label_fraction are two ways"),
        (np.arange(9.0), {"count": 0}, "labelled must be at least 1, not 0"),
        (np.arange(9.0), {"fraction": 1.5}, "label_fraction must lie above 0"),
        (np.arange(9.0), {"held_out": 2}, r"held_out must lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(values, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        draw(values, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [[10] * 20, [1] * 40, [30, *[1] * 20], [5, 5, 5]])
def test_groups_with_one_value_each_reach_every_part(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    values = np.repeat(np.random.default_rng(0).normal(size=len(sizes)), sizes)
    fractions = (0.6, 0.2, 0.2)
    parts = value_split(values, np.arange(len(groups)), groups, fractions, Rng.of(0))
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    assert sum(len(np.unique(groups[part])) for part in parts) == len(sizes)
    if len(set(sizes)) == 1 and len(sizes) > 3:
        assert [len(part) / len(groups) for part in parts] == pytest.approx(fractions)
