"""Class names in `dataset.json` as a Decathlon, nnU-Net and others write them."""

import json
import os

import pytest
from scans import classes, decathlon, save, scan

from tacit.data.open import open_source
from tacit.data.volume.class_names import ClassNames, read_class_names
from tacit.errors import BadFile, UsageError


def written(folder, labels):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["background", "a", "b"], {0: "background", 1: "a", 2: "b"}),
        ({"background": "0", "a": "1"}, {0: "background", 1: "a"}),
        ({"background": 0, "a": 1.0}, {0: "background", 1: "a"}),
        ({"background": 0, "a": [1], "b": [2]}, {0: "background", 1: "a", 2: "b"}),
        ({"a": 1, "b": 2}, {0: "background", 1: "a", 2: "b"}),
        ({"0": "0", "1": "1"}, {0: "0", 1: "1"}),
        ({}, {}),
    ],
)
def test_ways_to_write_them(tmp_path, labels, names):
    assert read_class_names(written(tmp_path, labels)) == ClassNames(names)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"background": 0, "a": 2.5}, "2.5 is not a whole number"),
        ({"background": 0, "a": 256}, "a is 256: values go from 0 to 255"),
        ({"0": "background", "-1": "void"}, "void is -1"),
        ({"0": "liver", "1": "Background"}, "the background is 1: it must be 0"),
        ({"a": 1, "b": 1}, "names must be there and differ"),
        ({"background": 0, "a": True}, "True is not a whole number"),
        ({"0": "background", "1": None}, "names must be texts"),
        ({"background": 0, "whole": [1, 2], "core": "two"}, "'two' is not a whole number"),
    ],
)
def test_what_cannot_be_meant(tmp_path, labels, told):
    with pytest.raises(UsageError, match=f"its labels cannot be read .*{told}"):
        read_class_names(written(tmp_path, labels))


def test_regions_are_said(tmp_path):
    found = read_class_names(written(tmp_path, {"background": 0, "whole": [1, 2], "core": [2]}))
    assert found.names == {}
    assert found.notes == (
        "dataset.json names regions (whole of 1, 2): the values of the masks are learned, without names",
    )


def test_regions_beside_voxels_that_nobody_labelled(tmp_path):
    written(decathlon(tmp_path), {"background": 0, "whole": [1, 2], "core": [1, 3], "ignore": 2})
    assert read_class_names(tmp_path).ignored == 2
    with pytest.raises(BadFile, match=r"its mask holds 2, which dataset\.json calls 'ignore'"):
        open_source(tmp_path)


def test_a_table_that_is_nested_deeply_is_one_line(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UsageError, match=r"its labels cannot be read \(it is nested too deeply") as caught:
        read_class_names(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "dataset.json")
    with pytest.raises(UsageError, match=r"its labels cannot be read .*a pipe"):
        read_class_names(tmp_path, ["a/dataset.json"])


def test_masks_without_background_are_said(tmp_path):
    save(tmp_path / "a.nii", scan())
    save(tmp_path / "a_seg.nii", classes() + 1)
    assert open_source(tmp_path).notes == (
        "no mask holds 0, which is the background: 1 is learned as a structure",
    )


def test_voxels_that_nobody_labelled_are_no_class(tmp_path):
    written(decathlon(tmp_path), {"background": 0, "a": 1, "b": 2, "ignore": 3})
    assert open_source(tmp_path).spec.classes == ("background", "a", "b")
    written(tmp_path, {"background": 0, "a": 1, "ignore": 2})
    with pytest.raises(BadFile, match=r"its mask holds 2, which dataset\.json calls 'ignore'"):
        open_source(tmp_path)


def test_tables_further_down(tmp_path):
    same = {"background": 0, "a": 1, "b": 2}
    written(decathlon(tmp_path / "train"), same)
    source = open_source(tmp_path)
    assert source.spec.classes == ("background", "a", "b")
    assert source.notes == ("class names are those of train/dataset.json",)
    assert source.understood == "3 of 4 volumes have a mask of 0 background, 1 a, 2 b"
    written(decathlon(tmp_path / "test"), {"background": 0, "b": 1, "a": 2})
    with pytest.raises(UsageError, match=r"test/dataset\.json and .*train/dataset\.json give other names"):
        open_source(tmp_path)
    written(tmp_path, same)  # the one above says it for all
    assert open_source(tmp_path).notes == ()


def test_numbers_of_no_voxel_are_said(tmp_path):
    written(decathlon(tmp_path), {"background": 0, "a": 1, "b": 2, "d": 4})
    assert open_source(tmp_path).notes == ("no mask holds 3, and classes are numbered through all the same",)


def test_a_number_beyond_all_bounds_is_one_line(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {"a": 1' + "0" * 400 + "}}")
    with pytest.raises(UsageError, match="its labels cannot be read"):
        read_class_names(tmp_path)
