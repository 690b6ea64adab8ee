import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.data.labels import read_labels, sort_classes, stratified_split
from tacit.errors import UsageError
from tacit.rng import Rng

NAMES = ["a/1.png", "a/2.png", "b/1.png", "b/3.jpg"]


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na/1.png,cat\nb/3.jpg,dog\n",
        "path,grade\n./a/1.png,cat\nb\\3.jpg,dog\n",
        "label,filename\ncat,a/1.png\ndog,b/3.jpg\n",  # columns by name, in any order
        "ID;x\na/1;cat\n3;dog\n",  # semicolons, unknown names, no extensions
        "Image\tage\tClass\na/1.png\t3\tcat\n3.jpg\t4\tdog\n",  # tabs, another column, file name alone
        "a/1.png,cat\nb/3.jpg,dog\n",  # no header
        '\n"file","label"\n"a/1.png","cat"\n\nb/3.jpg,dog\n'.lstrip(),  # quotes, an empty line
        "file,label\na/1.png,cat\na/1.png,cat\na/2.png,\nb/1.png,-1\nb/3.jpg, dog \n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_find_their_samples(table, text, encoding):
    labels, classes, *_ = read_labels(table(text, encoding), NAMES)
    assert classes == ("cat", "dog")
    assert labels.tolist() == [0, -1, -1, 1]
    assert labels.dtype == np.int64


def test_whole_numbers_are_sorted_as_numbers(table):
    labels, classes, *_ = read_labels(
        table("file,y\na/1.png,10.0\na/2.png,9.0\nb/1.png,-1.0\nb/3.jpg,2\n"), NAMES
    )
    assert classes == ("2", "9", "10")
    assert labels.tolist() == [2, 1, -1, 0]
    assert sort_classes(["b", "10", "9"]) == ("10", "9", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\na/1.png,x\nb/4.jpg,y\n",
            "line 3: no sample is called 'b/4.jpg'; did you mean 'b/3.jpg'",
        ),
        (
            "file,label\n7.png,x\n3.jpeg,x\n9.png,x\n",
            r"line 2: no sample is called '7.png' \(so do 2 more rows",
        ),
        ("file,label\n1.png,x\n", r"line 2: '1.png' fits 2 samples \(a/1.png, b/1.png\): give the path"),
        ("file,label\na/1.png,x\na/2.png,y\na/1,y\n", "lines 2 and 4 disagree about 'a/1': 'x' and 'y'"),
        ("file,label\na/1.png,x\na/1.png,\n", "lines 2 and 3 disagree"),
        ("file,label\na/1.png,\na/2.png,-1\n", "holds no label"),
        ("file\na/1.png\n", "two columns are needed"),
        ("", "two columns are needed"),
        ("file,age,label\na/1.png,3\n", "line 2: 2 cells, 3 are expected"),
    ],
)
def test_wrong_rows_are_named_by_their_line(table, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_labels(table(text), NAMES)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(table, tmp_path):
    table("")
    with pytest.raises(UsageError, match=r"no labels file .*lables\.csv; did you mean 'labels\.csv'"):
        read_labels(tmp_path / "lables.csv", NAMES)
    (tmp_path / "labels.csv").write_bytes(b"file,label\na/1.png,\xff\xfe\n")
    with pytest.raises(UsageError, match="cannot read the labels file"):
        read_labels(tmp_path / "labels.csv", NAMES)


def test_rows_of_skipped_files_are_passed_over(table):
    labels, classes, *_ = read_labels(table("file,label\na/1.png,x\nbad.png,y\n"), NAMES, skipped=["bad.png"])
    assert labels.tolist() == [0, -1, -1, -1]
    assert classes == ("x", "y")


def test_a_split_by_hand():
    labels = np.array([0] * 10 + [1] * 5 + [-1] * 7)
    train, val = stratified_split(labels, (0.8, 0.2), Rng.of(0))
    assert np.bincount(labels[train]).tolist() == [8, 4]
    assert np.bincount(labels[val]).tolist() == [2, 1]
    assert (np.diff(train) > 0).all()
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(15))


def test_a_split_is_determined_by_the_seed_and_by_nothing_else():
    labels = np.arange(60) % 3
    first = stratified_split(labels, (0.5, 0.5), Rng.of(1))
    np.random.seed(5)  # noqa: NPY002
    again = stratified_split(labels, (0.5, 0.5), Rng.of(1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = stratified_split(labels, (0.5, 0.5), Rng.of(2))
    assert not np.array_equal(first[0], other[0])


def test_rounding_is_given_back_in_the_next_class():
    labels = np.repeat(np.arange(100), 5)
    halves = stratified_split(labels, (0.5, 0.5), Rng.of(0))
    assert [len(half) for half in halves] == [250, 250]
    assert {*np.bincount(labels[halves[0]])} == {2, 3}


def test_rare_classes_are_in_every_part_that_they_can_fill():
    labels = np.array([0] * 100 + [1] * 2 + [2] * 3 + [3])
    train, val, test = stratified_split(labels, (0.8, 0.1, 0.1), Rng.of(0))
    assert 2 in labels[train]
    assert 2 in labels[val]
    assert 2 in labels[test]
    assert sum(1 in labels[part] for part in (train, val, test)) == 2
    assert sum(3 in labels[part] for part in (train, val, test)) == 1
    two = stratified_split(labels, (0.99, 0.01), Rng.of(0))
    assert all({0, 1, 2} <= set(labels[part]) for part in two)


def test_what_is_left_of_the_fractions_is_left_out():
    labels = np.arange(1000) % 10
    (tenth,) = stratified_split(labels, (0.1,), Rng.of(3))
    assert np.bincount(labels[tenth]).tolist() == [10] * 10


@pytest.mark.parametrize("fractions", [(), (0.0, 1.0), (0.8, 0.3), (-0.1,)])
def test_wrong_fractions(fractions):
    with pytest.raises(UsageError, match="fractions must be above 0"):
        stratified_split(np.zeros(4, np.int64), fractions, Rng.of(0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-1, 4), max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 10),
    st.integers(0, 99),
)
def test_parts_are_disjoint_sorted_and_near_their_share(labels, weights, rest, seed):
    labels = np.array(labels, np.int64)
    fractions = np.array(weights) / (sum(weights) + rest)
    parts = stratified_split(labels, fractions, Rng.of(seed))
    together = np.concatenate(parts)
    assert len(set(together)) == len(together)
    assert (labels[together] >= 0).all()
    assert all((np.diff(part) > 0).all() for part in parts)
    if rest == 0:
        assert len(together) == (labels >= 0).sum()
    for label in set(labels[labels >= 0]):
        count = (labels == label).sum()
        got = [(labels[part] == label).sum() for part in parts]
        if count >= len(parts):
            assert min(got) >= 1
        else:
            assert max(got) <= 1
