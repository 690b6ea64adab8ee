"""True masks whose class numbers are others than the run's, and the size of sheared voxels."""

import nibabel as nib
import numpy as np
import pytest
from torch import nn

from tacit.data.open import open_source
from tacit.data.source import Source, Spec
from tacit.data.volume.canvas import VolumeCanvas
from tacit.errors import UsageError
from tacit.tasks.masks.numbering import numbering
from tacit.tasks.masks.predict import _numbering, _target
from tacit.tasks.masks.segmenter import MaskCard, Segmenter

NAMED = ("background", "liver", "spleen")


def numbered(classes, known):
    return numbering(classes, known, range(len(classes)))


def test_classes_are_matched_by_name():
    numbers, note = numbered(("background", "spleen", "liver"), NAMED)
    assert numbers.tolist() == [0, 2, 1]
    assert note == (
        "classes are matched by name: spleen is 1 in the data and 2 in the run, liver is 2 in the data and 1 "
        "in the run"
    )


@pytest.mark.parametrize("classes", [NAMED, ("background", "liver"), ("background", "1", "2"), ()])
def test_the_same_or_no_names_are_taken_by_number(classes):
    numbers, note = numbered(classes, NAMED)
    assert numbers.tolist() == list(range(len(classes)))
    assert note.startswith("the data's classes have no names") == ("liver" not in classes)


def test_names_of_a_run_without_any_are_taken_by_number():
    numbers, note = numbered(NAMED, ("background", "1", "2"))
    assert numbers.tolist() == [0, 1, 2]
    assert note.startswith("the run's classes have no names: values are taken as the data numbers them (0 b")


@pytest.mark.parametrize(
    "classes", [("background", "kidney"), ("background", "liver", "kidney"), (*NAMED, "gall")]
)
def test_a_class_that_the_run_does_not_know_is_refused(classes):
    with pytest.raises(UsageError, match=f"the masks have the class '{classes[-1]}' .*the run does not know"):
        numbered(classes, NAMED)


def test_labels_that_are_no_masks_have_no_classes_here():
    source = Source(Spec("volume", (1, 8, 8, 8), ("x",)), ["a"])
    segmenter = Segmenter(nn.Identity(), nn.Identity(), MaskCard(classes=NAMED))
    numbers, note = _numbering(source, segmenter)
    assert (numbers.size, note) == (0, "")


def test_millilitres_of_a_sheared_voxel(tmp_path):
    affine = np.diag([1.5, 1.2, 2.0, 1.0])  # a gantry tilted by 25 degrees
    affine[1, 2], affine[2, 2] = -2 * np.sin(np.deg2rad(25)), 2 * np.cos(np.deg2rad(25))
    nib.save(nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), affine), tmp_path / "a.nii.gz")
    canvas = VolumeCanvas(open_source(tmp_path, progress=False).volume(0), (8, 8, 8))
    assert canvas.element == pytest.approx(1.5 * 1.2 * 2 * np.cos(np.deg2rad(25)) / 1000)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("X.NII.GZ", "X.nii.gz"),
        ("p/a.nii", "p/a.nii.gz"),
        ("p.1/b.c.nii.gz", "p.1/b.c.nii.gz"),
        ("h.h5", "h.nii.gz"),
    ],
)
def test_how_masks_are_called(name, wanted):
    class Canvas:
        ending = ".nii.gz"

    assert _target(name, Canvas()) == wanted
