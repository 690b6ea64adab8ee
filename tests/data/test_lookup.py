"""Samples by the names that people write down for them."""

import os

import pytest

from tacit.data.lookup import Lookup

LATIN = os.fsdecode(b"caf\xe9.png")


def find(names, text, skipped=()):
    found = Lookup(names, skipped, [text]).find(text)
    return [(*names, *skipped)[i] for i in found.positions], found.dropped


NAMES = ["a/1.png", "a/2.png", "b/1.png", "3.png", "scan.nii.gz", "a/b/7.png"]


@pytest.mark.parametrize(
    ("text", "found", "dropped"),
    [
        ("a/1.png", ["a/1.png"], ""),
        ("a/1", ["a/1.png"], ""),
        ("2.png", ["a/2.png"], ""),
        ("2", ["a/2.png"], ""),
        ("1.png", ["a/1.png", "b/1.png"], ""),
        ("scan", ["scan.nii.gz"], ""),
        ("b/7.png", ["a/b/7.png"], ""),  # the end of a path
        ("./a//1.png", ["a/1.png"], ""),
        ("a\\1.png", ["a/1.png"], ""),
        ("/home/me/photos/a/1.png", ["a/1.png"], "home/me/photos/"),
        ("data/train/3.png", ["3.png"], "data/train/"),
        ("C:\\photos\\b\\1.png", ["b/1.png"], "C:/photos/"),
        ("x/2.png", [], ""),  # its folder is x, and that of the sample is a
        ("1.jpg", [], ""),
        ("", [], ""),
    ],
)
def test_ways_to_name_a_sample(text, found, dropped):
    assert find(NAMES, text) == (found, dropped)


def test_a_path_goes_before_its_end():
    names = ["1.png", "x/1.png"]
    assert find(names, "1.png") == (["1.png"], "")
    assert find(names, "x/1.png") == (["x/1.png"], "")
    assert find(names, "y/x/1.png") == (["x/1.png"], "y/")  # the longest end that is a path
    assert find(["a.png", "sub/a"], "a") == (["a.png"], "")


def test_letters_of_one_character_or_two_are_the_same():
    one, two = "caf\u00e9.png", "cafe\u0301.png"
    for name in (one, two):
        for text in (one, two, one.removesuffix(".png"), f"x/{two}"):
            assert find([name], text)[0] == [name]
    for text in (one, two):  # both are there
        assert find([one, two], text)[0] == [text]


def test_names_that_are_not_utf_8():
    for text in (LATIN, r"caf\xe9.png", r"caf\xe9"):
        assert find([LATIN, "b.png"], text)[0] == [LATIN]
    assert find(["café.png"], LATIN)[0] == ["café.png"]  # a file of one byte per character


def test_names_that_were_written_so_that_no_spreadsheet_executes_them():
    assert find(["=x.png", "x.png"], "'=x.png")[0] == ["=x.png"]
    assert find(["'x.png"], "'x.png")[0] == ["'x.png"]


def test_skipped_files_follow_the_samples():
    assert Lookup(["a.png"], ["b.png"], ["b"]).find("b").positions == [1]
