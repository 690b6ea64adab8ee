import json
from pathlib import Path

import pytest
from scans import decathlon

from tacit.data.open import open_source
from tacit.data.source import Skipped
from tacit.data.volume import layout as volume_layout
from tacit.data.volume.layout import holds_volumes, lay_out
from tacit.errors import BadFile, UsageError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def pairs(folder, masks=None):
    """The name of the mask, or None, by volume."""
    layout = lay_out(folder, masks)
    root = folder.resolve()
    return {
        case.name: case.mask and case.mask.relative_to(root if masks is None else masks.resolve()).as_posix()
        for case in layout.cases
    }


def test_a_suffix_that_is_not_known_is_said(tmp_path):
    write(tmp_path, "case1.nii.gz", "case1_roi.nii.gz", "case2.nii.gz")
    (note,) = lay_out(tmp_path).doubts.values()
    assert note.startswith(
        "case1_roi.nii.gz is taken for a volume: if it is the mask of case1.nii.gz, let it end in _seg"
    )
    assert lay_out(write(tmp_path / "other", "case_1.nii", "case_2.nii")).doubts == {}


def splits(folder):
    layout = lay_out(folder)
    return {split: [layout.cases[i].name for i in part] for split, part in layout.splits.items()}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["a.nii", "b.nii.gz", "c.h5", "notes.txt", ".a.nii", "._b.nii.gz"],
         {"a.nii": None, "b.nii.gz": None, "c.h5": None}),
        (["imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz", "imagesTs/a.nii.gz"],
         {"imagesTr/a.nii.gz": "labelsTr/a.nii.gz", "imagesTr/b.nii.gz": None, "imagesTs/a.nii.gz": None}),
        (["images/a.nii.gz", "labels/a.nii"], {"images/a.nii.gz": "labels/a.nii"}),
        (["images/a.nii", "Masks/a_mask.nii"], {"images/a.nii": "Masks/a_mask.nii"}),
        (["images/p1/a.nii", "images/p2/a.nii", "segmentations/p2/a.nii"],
         {"images/p1/a.nii": None, "images/p2/a.nii": "segmentations/p2/a.nii"}),
        (["images/a.nii", "labelsTr/a.nii"], {"images/a.nii": "labelsTr/a.nii"}),
        (["a.nii", "masks/a.nii"], {"a.nii": "masks/a.nii"}),
        (["p/a.nii", "p/a_seg.nii", "p/b.nii", "p/b_mask.nii.gz"],
         {"p/a.nii": "p/a_seg.nii", "p/b.nii": "p/b_mask.nii.gz"}),
        (["c-seg.nii", "c.nii", "d.h5", "d_label.npz"], {"c.nii": "c-seg.nii", "d.h5": "d_label.npz"}),
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], {"imagesTr/a_0000.nii.gz": "labelsTr/a.nii.gz"}),
        (["_seg.nii"], {"_seg.nii": None}),
        (["images/L1.nii.gz", "masks/L1_msk.nii.gz"], {"images/L1.nii.gz": "masks/L1_msk.nii.gz"}),
        (["images/a.nii.gz", "masks/images/a.nii.gz"], {"images/a.nii.gz": "masks/images/a.nii.gz"}),
        (["A.NII.GZ", "A_seg.NII.GZ"], {"A.NII.GZ": "A_seg.NII.GZ"}),
        (["sub-01_T1w.nii", "sub-01_T1w_dseg.nii"], {"sub-01_T1w.nii": "sub-01_T1w_dseg.nii"}),
    ],
)  # fmt: skip
def test_masks_are_found(tmp_path, files, wanted):
    assert pairs(write(tmp_path, *files)) == wanted
    assert lay_out(tmp_path).bad == []


def test_masks_in_a_folder_that_is_named(tmp_path):
    data = write(tmp_path / "data", "images/p1/a.nii", "images/p2/b.nii", "labels/p1/a.nii", "c_seg.nii")
    masks = write(tmp_path / "other", "b_seg.nii", "p1/a.nii.gz")
    assert pairs(data, masks) == {
        "c_seg.nii": None, "images/p1/a.nii": "p1/a.nii.gz", "images/p2/b.nii": "b_seg.nii"}  # fmt: skip
    inside = write(tmp_path / "data", "truth/p2/b.nii").joinpath("truth")
    assert pairs(data, inside) == {"c_seg.nii": None, "images/p1/a.nii": None, "images/p2/b.nii": "p2/b.nii"}
    with pytest.raises(UsageError, match="no folder of masks"):
        lay_out(data, tmp_path / "absent")
    with pytest.raises(UsageError, match="is the folder of the volumes"):
        lay_out(data, data)


def test_a_mask_without_a_volume(tmp_path):
    write(tmp_path, "images/a.nii", "labels/b.nii", "c_seg.nii")
    reason = "a mask without a volume: no volume of that name is there"
    assert lay_out(tmp_path).bad == [Skipped("c_seg.nii", reason), Skipped("labels/b.nii", reason)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.nii", "a.nii.gz", "a_seg.nii"], r"the mask a_seg\.nii fits 2 volumes \(a\.nii, a\.nii\.gz\)"),
        (["a.nii", "a_seg.nii", "masks/a.nii"], r"a\.nii has two masks, a_seg\.nii and masks/a\.nii"),
        (
            ["images/a_0000.nii", "images/a_0001.nii", "labels/a.nii"],
            "are channels of one volume: stack",
        ),
        (["labels/a.nii", "read.me"], r"no volumes in .* \(read are \.nii .*\): it holds 1 mask, 1 \.me"),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path, files, message):
    with pytest.raises(UsageError, match=message) as caught:
        lay_out(write(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_splits(tmp_path):
    by_folder = write(tmp_path / "a", "train/1.nii", "train/1_seg.nii", "Validation/2.nii", "test/3.nii")
    assert splits(by_folder) == {
        "train": ["train/1.nii"],
        "val": ["Validation/2.nii"],
        "test": ["test/3.nii"],
    }
    below = write(tmp_path / "b", "images/train/1.nii", "labels/train/1.nii", "images/test/2.nii")
    assert splits(below) == {"train": ["images/train/1.nii"], "test": ["images/test/2.nii"]}
    write(tmp_path / "c", "train/1.nii", "more/2.nii")
    with pytest.raises(UsageError, match=r"called as splits \(train\), others are not \(more\)"):
        splits(tmp_path / "c")
    assert lay_out(tmp_path / "c", folders="classes").splits == {}
    assert splits(write(tmp_path / "d", "imagesTr/1.nii", "labelsTr/1.nii", "imagesTs/2.nii")) == {}
    write(tmp_path / "d", "labelsTs/2.nii")
    assert splits(tmp_path / "d") == {"train": ["imagesTr/1.nii"], "test": ["imagesTs/2.nii"]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"labels": {"0": "background", "2": "Posterior", "1": "Anterior"}}',
         {0: "background", 1: "Anterior", 2: "Posterior"}),
        ('{"labels": {"background": 0, "tumour": 1}}', {0: "background", 1: "tumour"}),
        ('{"labels": {"background": 0, "whole": [1, 2]}}', {}),
        ('{"name": "x"}', {}),
    ],
)  # fmt: skip
def test_class_names(tmp_path, text, wanted):
    write(tmp_path, "a.nii").joinpath("dataset.json").write_text(text)
    assert lay_out(tmp_path).classes == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"labels": {"a": "b"}}',
        '{"labels": 3}',
        "[]",
        '{"labels": {"0": "a", "1": "a"}}',
        '{"labels": {"0": ""}}',
    ],
)
def test_class_names_that_cannot_be_read(tmp_path, text):
    write(tmp_path, "a.nii").joinpath("dataset.json").write_text(text)
    with pytest.raises(UsageError, match=r"dataset\.json: its labels cannot be read") as caught:
        lay_out(tmp_path)
    assert "\n" not in str(caught.value)


def test_class_names_say_which_values_there_are(tmp_path):
    decathlon(tmp_path)
    names = {"0": "nothing", "2": "head", "4": "tail"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    with pytest.raises(BadFile, match=r"its mask holds 1, and the labels in dataset\.json are 0, 2, 4"):
        open_source(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {**names, "1": "neck"}}))
    assert open_source(tmp_path).spec.classes == ("nothing", "neck", "head", "3", "tail")


def test_links_are_followed_and_loops_are_not(tmp_path):
    write(tmp_path / "far", "a.nii")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "here")
    assert list(pairs(tmp_path / "here")) == ["link/a.nii"]
    assert holds_volumes(tmp_path / "here")


@pytest.mark.parametrize(
    ("files", "volumes"),
    [
        (["a.nii.gz"], True),
        (["preview.png", "imagesTr/a.nii.gz"], True),
        (["x/y/z/a.h5", "notes.txt"], True),
        (["a.jpg", "features.h5"], False),
        (["a.npz", "b.npz"], True),
        (["a.png"], False),
        (["a.txt"], False),
        ([], False),
    ],
)
def test_a_quick_look(tmp_path, files, volumes):
    assert holds_volumes(write(tmp_path, *files)) is volumes


def test_a_quick_look_does_not_read_a_million_names(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_layout, "_LOOKED_AT", 20)
    write(tmp_path, *(f"{i}.png" for i in range(100)), "deep/a.nii")
    listed = []
    levels = volume_layout._levels

    def noted(folder):
        for name in levels(folder):
            listed.append(name)
            yield name

    monkeypatch.setattr(volume_layout, "_levels", noted)
    assert not holds_volumes(tmp_path)
    assert len(listed) <= 22


def test_a_mask_fits_its_volume_in_either_spelling_of_an_accent(tmp_path):
    one, two = "caf\u00e9", "cafe\u0301"
    folder = write(tmp_path, f"images/{one}.nii.gz", f"labels/{two}_seg.nii.gz")
    assert pairs(folder) == {f"images/{one}.nii.gz": f"labels/{two}_seg.nii.gz"}
