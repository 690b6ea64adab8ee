"""What is said of the data before anything is done with them."""

import numpy as np
import pytest
from pictures import smooth, write
from PIL import Image

from tacit.data.open import open_source
from tacit.data.source import Skipped, Source, Spec
from tacit.data.understood import understood
from tacit.errors import UsageError


def source(labels, classes=("cat", "dog"), **splits):
    made = Source(Spec("image", (1, 8, 8), classes), list(map(str, labels)), np.array(labels))
    made.splits = {name: np.array(part) for name, part in splits.items()}
    return made


def test_classes_splits_groups_and_what_has_no_label():
    made = source([0, 0, 1, -1, -1], train=[0, 2, 3, 4], test=[1])
    made.groups = np.array([5, 6, 7, 7, 7])
    assert understood(made) == [
        "data: 5 images; 2 classes: cat 2, dog 1; 2 without a label; splits: train 4, test 1; 3 groups"
    ]


def test_no_labels_and_one_image():
    assert understood(source([-1], classes=())) == ["data: 1 image; no labels"]


def test_a_class_without_samples_is_named():
    assert understood(source([0, 0])) == ["data: 2 images; 2 classes: cat 2, dog 0"]


def test_many_classes_are_cut_short():
    made = source(range(12), classes=tuple(f"c{i}" for i in range(12)))
    assert understood(made)[0].endswith(
        "12 classes: c0 1, c1 1, c2 1, c3 1, c4 1, c5 1, c6 1, c7 1 and 4 more"
    )


def test_a_class_for_nearly_every_label_is_said():
    numbers = source(range(12), classes=tuple(map(str, range(20, 32))))
    assert understood(numbers)[-1].startswith("note: 12 classes for 12 labels: if these are numbers")
    assert len(understood(source([0, 1] * 6))) == 1


def test_values():
    made = source([0, 0, -1], classes=())
    made.values = np.array([18.0, 93.5, np.nan])
    assert understood(made) == ["data: 3 images; 2 values from 18 to 93.5; 1 without a label"]


def test_what_was_left_out_and_notes_follow():
    made = source([0, 1])
    made.skipped = tuple(Skipped(f"{i}.png", "empty") for i in range(5))
    made.label_note, made.notes = "labels.csv: column 'y'", ("cat and Cat differ",)
    assert understood(made)[1:] == [
        "data: labels.csv: column 'y'",
        "data: 5 left out: 0.png (empty), 1.png (empty), 2.png (empty) and 2 more",
        "note: cat and Cat differ",
    ]


def test_groups_in_two_splits_are_said():
    made = source([0, 1, 0, 1], train=[0, 1], test=[2, 3])
    made.groups = np.array([0, 1, 1, 2])
    assert (
        understood(made)[-1] == "note: 1 group(s) are in train and in test: what is measured on test flatters"
    )


def test_a_folder_as_public_sets_have_it(tmp_path):
    write(tmp_path, "Training/a/1.png", "Training/b/2.png", "Testing/a/3.png", "Testing/b/4.png")
    write(tmp_path, "unlabeled/5.png", "__MACOSX/Training/a/1.png", "Training/@eaDir/6.png")
    made = open_source(tmp_path)
    assert understood(made) == [
        "data: 5 images; 2 classes: a 2, b 2; 1 without a label; splits: train 3, test 2"
    ]
    assert made.training.tolist() == [made.names.index(n) for n in made.names if n[:7] != "Testing"]


def test_a_test_part_alone_is_not_learned_from(tmp_path):
    write(tmp_path, "test/a/1.png", "test/b/2.png")
    with pytest.raises(UsageError, match="no training part, only test"):
        _ = open_source(tmp_path).training
    assert open_source(tmp_path / "test").training.tolist() == [0, 1]


def test_a_question_that_names_leave_open_is_asked_before_anything_is_decoded(tmp_path, monkeypatch):
    write(tmp_path, "control/1.png", "test/2.png")
    with monkeypatch.context() as patched:
        patched.setattr("tacit.data.image.folder.store_images", lambda *_: pytest.fail("decoded"))
        with pytest.raises(UsageError, match="--folders classes"):
            open_source(tmp_path)
    assert open_source(tmp_path, folders="classes").spec.classes == ("control", "test")
    with pytest.raises(UsageError, match="unknown reading of folders 'clases'; did you mean 'classes'"):
        open_source(tmp_path, folders="clases")


def test_masks_in_splits_of_other_names(tmp_path):
    for split in ("Training", "dev"):
        for kind, picture in (("images", smooth(12, 12)), ("masks", np.zeros((12, 12), np.uint8))):
            (tmp_path / split / kind).mkdir(parents=True)
            if kind == "masks":
                picture[3:6, 3:6] = 255
            Image.fromarray(picture).save(tmp_path / split / kind / f"{split}.png")
    made = open_source(tmp_path)
    assert {name: part.tolist() for name, part in made.splits.items()} == {"train": [0], "val": [1]}
    assert understood(made)[0] == (
        "data: 2 images; 2 of 2 images have a mask of background (0), 1 (255); splits: train 1, val 1"
    )
