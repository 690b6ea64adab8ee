import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.data.names import Chosen, Names

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=12)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_names_are_the_strings_that_were_packed(strings):
    names = Names.of(strings)
    assert list(names) == strings
    assert names == strings
    assert [names[i] for i in range(len(names))] == strings
    assert [names[-i] for i in range(1, len(names) + 1)] == strings[::-1]
    assert names[1:-1] == strings[1:-1]
    assert names[::-2] == strings[::-2]


@settings(max_examples=60, deadline=None)
@given(texts, st.text(st.characters(codec="utf-8"), max_size=2))
def test_prefixes(strings, prefix):
    assert Names.of(strings).starting(prefix).tolist() == [s.startswith(prefix) for s in strings]


def test_suffixes_in_either_case():
    names = Names.of(["a.png", "b.PNG", "png", ".pNg", "c.pngx", "", "d.N\x10Y", "é.npy"])
    assert names.ending([".png"]).tolist() == [True, True, False, True, False, False, False, False]
    assert names.ending([".npy", ".png"]).tolist() == [True, True, False, True, False, False, False, True]


def test_many_are_iterated_in_parts(monkeypatch):
    monkeypatch.setattr("tacit.data.names._AT_ONCE", 3)
    strings = [str(i) * (i % 4) for i in range(20)]
    assert list(Names.of(strings)) == strings


def test_comparing():
    names = Names.of(["a", "b"])
    assert names != ["a"]
    assert names != ["a", "c"]
    assert names != 3
    assert Names.of([]) == []


def test_an_index_out_of_range():
    for i in (2, -3):
        with pytest.raises(IndexError):
            Names.of(["a", "b"])[i]


def test_saved_names_are_mapped_and_pickled_as_their_place(tmp_path):
    strings = [f"folder/{i:05}.png" for i in range(1000)]
    Names.of(strings).save(tmp_path / "names")
    names = Names.load(tmp_path / "names")
    assert names == strings
    assert len(pickle.dumps(names)) < 500
    assert pickle.loads(pickle.dumps(names)) == strings
    assert pickle.loads(pickle.dumps(Names.of(strings))) == strings
    with open(tmp_path / "names", "r+b") as file:
        file.truncate(2000)
    with pytest.raises(ValueError, match="names"):
        Names.load(tmp_path / "names")
    with pytest.raises(FileNotFoundError):
        Names.load(tmp_path / "absent")


def test_some_of_them_copy_nothing():
    chosen = Chosen(Names.of("abcdef"), np.array([5, 0, 3]))
    assert list(chosen) == ["f", "a", "d"]
    assert (chosen[-1], chosen[:2]) == ("d", ["f", "a"])
    assert chosen == ["f", "a", "d"]
    assert chosen != ["f", "a", "c"]
    assert Chosen(chosen, np.array([2])) == ["d"]
