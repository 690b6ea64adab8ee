import numpy as np
import pytest
import torch

from tacit.data.source import Sample, Source, Spec, collate
from tacit.errors import UsageError
from tacit.rng import Rng

RNG = Rng.of(0)("folds")


def source(labels, groups=None, **table):
    made = Source(Spec("series", (1, 4)), [str(i) for i in range(len(labels))], np.array(labels))
    made.groups = None if groups is None else np.array(groups)
    made.table = {name: np.array(column) for name, column in table.items()}
    return made


def test_samples_of_one_length_are_stacked_and_have_no_lengths():
    batch = collate([Sample(torch.full((2, 3), float(i)), i) for i in (4, 7)])
    assert batch.data[:, 0, 0].tolist() == [4, 7]
    assert batch.index.tolist() == [4, 7]
    assert batch.length is None
    assert batch.target is None


def test_ragged_samples_are_padded_with_zeros_at_the_end():
    parts = [torch.arange(1.0, 7).reshape(2, 3), torch.ones(2, 5)]
    batch = collate([Sample(part, i) for i, part in enumerate(parts)])
    assert batch.data[0].tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]]
    assert batch.data[1].tolist() == [[1] * 5] * 2
    assert batch.length.tolist() == [3, 5]


def test_a_sample_can_say_itself_how_much_of_it_is_valid():
    batch = collate([Sample(torch.ones(1, 4), 0, length=2), Sample(torch.ones(1, 4), 1)])
    assert batch.length.tolist() == [2, 4]


def test_samples_with_other_channels_make_no_batch():
    with pytest.raises(ValueError, match=r"shapes \(1, 4\), \(2, 3\) make no batch"):
        collate([Sample(torch.ones(2, 3), 0), Sample(torch.ones(1, 4), 1)])


def test_targets_are_there_only_if_all_have_one():
    with_one, without = Sample(torch.ones(1, 4), 0, target=torch.tensor(3.5)), Sample(torch.ones(1, 4), 1)
    assert collate([with_one, with_one]).target.tolist() == [3.5, 3.5]
    assert collate([with_one, without]).target is None


@pytest.mark.parametrize("labels", [[0, 1] * 12, [-1] * 24])
def test_folds_test_each_sample_once_and_split_no_group(labels):
    groups = np.repeat(np.arange(8), 3)
    folds = source(labels, groups).folds(4, RNG)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(24))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(24))
        assert not set(groups[train]) & set(groups[test])
        assert len(test) == 6


def test_folds_are_stratified_and_a_function_of_the_rng():
    labels = [0] * 20 + [1] * 5
    first, again, other = (source(labels).folds(5, rng) for rng in (RNG, RNG, RNG("other")))
    for train, test in first:
        assert np.bincount(np.array(labels)[test]).tolist() == [4, 1]
        assert len(train) == 20
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_one_site_is_left_out_at_a_time():
    folds = source([0] * 5, site=["a", "b", "a", "c", "b"]).folds("site", RNG)
    assert [test.tolist() for _, test in folds] == [[0, 2], [1, 4], [3]]
    assert [train.tolist() for train, _ in folds] == [[1, 3, 4], [0, 2, 3], [0, 1, 2, 4]]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("scanner", "unknown column 'scanner'"),
        ("one", "the column 'one' has one value"),
        ("site", "1 groups have several values of 'site'"),
        (1, "1 folds of 3 groups"),
        (4, "4 folds of 3 groups"),
    ],
)
def test_folds_that_cannot_be(by, message):
    made = source([0] * 4, groups=[5, 5, 6, 7], site=["a", "b", "a", "a"], one=["x"] * 4)
    with pytest.raises(UsageError, match=message):
        made.folds(by, RNG)


def test_a_part_has_its_rows_of_the_table():
    part = source([0, 1, 2], age=[30.0, 40.0, 50.0]).subset(np.array([2, 0]))
    assert part.table["age"].tolist() == [50, 30]
