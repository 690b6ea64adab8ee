"""What folder names say, worked out by hand."""

from unicodedata import normalize

import numpy as np
import pytest

from tacit.data.image.tree import read_tree
from tacit.data.splits import as_splits, part_of, parts_of, positions_of
from tacit.errors import UsageError


def read(*folders, **words):
    """Class and part of each folder, by name."""
    tree = read_tree(folders, "photos", **words)
    named = ["" if label < 0 else tree.classes[label] for label in tree.labels]
    return dict(zip(folders, zip(named, tree.parts, strict=True), strict=True))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN", "TrainSet", "train2017", "x_train")),
        *((name, "train") for name in ("labeled", "Labelled", "trainval", "train_val", "imagesTr")),
        *((name, "val") for name in ("val", "Validation", "valid_set", "dev", "eval", "val2017")),
        *((name, "test") for name in ("Testing", "test1", "Test-Data", "hold-out", "held_out", "holdout")),
        *((name, "unlabelled") for name in ("unlabeled", "Un-labelled", "no_label", "train_unlabeled")),
        ("extra", "extra"),
        *((name, None) for name in ("cat", "contest", "station", "validates", "tr", "blood_test", "2019")),
    ],
)
def test_how_parts_are_called(name, part):
    assert part_of(name) == part


def test_a_word_that_all_folders_have_makes_no_difference():
    assert parts_of(["seg_train", "seg_test"], "x") == {"seg_train": "train", "seg_test": "test"}
    assert parts_of(["blood_test", "urine_test"], "x") == {}
    assert parts_of(["train_station", "airport"], "x") == {}


@pytest.mark.parametrize(
    "names",
    [("control", "test"), ("cat", "dog", "extra"), ("train", "others"), ("train", "test", "misc"),
     ("trainA", "trainB", "testA", "testB")],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(names):
    with pytest.raises(UsageError, match="--folders classes"):
        parts_of(names, "photos")
    assert parts_of(names, "photos", "classes") == {}


def test_stl_has_splits_and_a_part_without_labels():
    assert read("test/cat/", "test/dog/", "train/cat/", "train/dog/", "unlabeled/") == {
        "test/cat/": ("cat", "test"),
        "test/dog/": ("dog", "test"),
        "train/cat/": ("cat", "train"),
        "train/dog/": ("dog", "train"),
        "unlabeled/": ("", "unlabelled"),
    }


def test_labelled_beside_unlabelled_is_no_split():
    found = read("labeled/cat/", "labeled/dog/", "unlabeled/")
    assert found == {
        "labeled/cat/": ("cat", "train"),
        "labeled/dog/": ("dog", "train"),
        "unlabeled/": ("", "unlabelled"),
    }
    parts = np.array([part for _, part in found.values()])
    assert as_splits(positions_of(parts)) == {}


def test_folders_in_a_part_without_labels_are_no_classes():
    assert read("train/a/", "train/b/", "unlabeled/a/", "unlabeled/b/")["unlabeled/a/"] == ("", "unlabelled")
    assert read("cat/", "dog/", "unlabeled/")["unlabeled/"] == ("", "unlabelled")
    assert read("unlabelled/a/", "unlabelled/b/")["unlabelled/a/"] == ("", "unlabelled")


def test_what_is_extra_may_have_classes():
    assert read("train/a/", "train/b/", "extra/a/", "extra/b/", "test/a/", "test/b/")["extra/b/"] == (
        "b",
        "extra",
    )


def test_folders_that_hold_all_others_are_passed_over():
    tree = read_tree(["archive/animals/cat/", "archive/animals/dog/"], "photos")
    assert (tree.classes, tree.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert tree.notes == ("classes are the folders in archive/animals/",)
    found = read("seg_test/seg_test/sea/", "seg_test/seg_test/sky/", "seg_train/seg_train/sea/",
                 "seg_train/seg_train/sky/")  # fmt: skip
    assert found["seg_test/seg_test/sky/"] == ("sky", "test")


def test_a_lone_class_in_a_split_is_the_class_of_the_others():
    found = read("test/cat/", "train/cat/", "train/dog/", "val/images/", "dev/")
    assert found["test/cat/"] == ("cat", "test")
    assert found["val/images/"] == ("", "val")


def test_splits_whose_classes_have_nothing_in_common_are_refused():
    with pytest.raises(UsageError, match=r"the test part \(one, two\) are none of the classes"):
        read("test/one/", "test/two/", "train/cat/", "train/dog/")
    assert read("test/one/", "test/two/", "train/cat/", "train/dog/", aside=True)["test/one/"] == ("", "test")


def test_by_word_of_the_user():
    mixed = ("cat/", "dog/", "test/")
    assert read(*mixed, reading="splits") == {"cat/": ("cat", ""), "dog/": ("dog", ""), "test/": ("", "test")}
    assert read(*mixed, reading="classes")["test/"] == ("test", "")
    found = read("misc/", "test/a/", "test/b/", "train/a/", "train/b/", reading="splits")
    assert found["misc/"] == ("", "")


@pytest.mark.parametrize(
    ("folders", "classes", "labels"),
    [
        ([""], (), [-1]),
        (["cat/", "dog/", "dog/x/"], ("cat", "dog"), [0, 1, 1]),
        (["cat/"], (), [-1]),
        (["train/cat/", "train/dog/"], ("cat", "dog"), [0, 1]),
        (["0/", "10/", "2/"], ("0", "2", "10"), [0, 2, 1]),
    ],
)
def test_class_folders(folders, classes, labels):
    tree = read_tree(folders)
    assert tree.classes == classes
    assert tree.labels.tolist() == labels
    assert as_splits(positions_of(np.array(tree.parts))) == {}


def test_splits_with_one_class_list():
    tree = read_tree(["Test/dog/", "Train/cat/", "Train/dog/", "validation/cat/", "validation/dog/"])
    assert tree.classes == ("cat", "dog")
    assert tree.labels.tolist() == [1, 0, 1, 0, 1]
    splits = as_splits(positions_of(np.array(tree.parts)))
    assert {name: p.tolist() for name, p in splits.items()} == {"train": [1, 2], "val": [3, 4], "test": [0]}


@pytest.mark.parametrize(
    "names",
    [("fold_0", "fold_1"), ("HAM10000_images_part_1", "HAM10000_images_part_2"), ("images_001", "images_012"),
     ("batch1", "batch2", "batch3")],
)  # fmt: skip
def test_portions_of_a_set_are_no_classes(names):
    assert parts_of(names, "x") == dict.fromkeys(names, "train")
    found = read(*(f"{name}/{c}/" for name in names for c in ("a", "b")))
    assert found[f"{names[-1]}/b/"] == ("b", "train")


@pytest.mark.parametrize(
    "names", [("0", "1"), ("class_1", "class_2"), ("grade1", "grade2"), ("part_a", "part_b")]
)
def test_classes_with_numbers_are_classes(names):
    assert parts_of(names, "x") == {}


def test_images_beside_class_folders_have_no_label():
    assert read("", "cat/", "dog/") == {"": ("", ""), "cat/": ("cat", ""), "dog/": ("dog", "")}


def test_one_class_in_two_normal_forms():
    composed, apart = normalize("NFC", "säge/"), normalize("NFD", "säge/")
    assert composed != apart
    tree = read_tree([f"test/{apart}", "test/x/", f"train/{composed}", "train/x/"])
    assert tree.classes == ("säge", "x")
    assert tree.labels.tolist() == [0, 1, 0, 1]


def test_names_that_differ_in_case_alone_are_said():
    assert read_tree(["Cat/", "cat/", "dog/"]).notes == (
        "classes Cat, cat differ in upper and lower case alone: are they one?",
    )


def test_extra_and_unlabelled_parts_are_learned_from():
    parts = np.array(["test", "train", "unlabelled", "extra", ""])
    assert {name: p.tolist() for name, p in as_splits(positions_of(parts)).items()} == {
        "train": [1, 2, 3, 4],
        "test": [0],
    }
