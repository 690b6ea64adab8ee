"""True masks whose class numbers are others than the run's, and the size of sheared voxels."""

import nibabel as nib
import numpy as np
import pytest

from tacit.data.open import open_source
from tacit.data.source import Source, Spec
from tacit.data.volume.canvas import VolumeCanvas
from tacit.errors import UsageError
from tacit.tasks.masks.predict import _numbers, _target

NAMED = ("background", "liver", "spleen")


def masks(*classes):
    return Source(Spec("volume", (1, 8, 8, 8), classes, "mask"), ["a"], np.zeros(1, np.int64))


def test_classes_are_matched_by_name():
    numbers, said = _numbers(masks("background", "spleen", "liver"), NAMED)
    assert numbers.tolist() == [0, 2, 1]
    assert said == ("classes are matched by name: in the run, spleen 1 is 2, liver 2 is 1",)


@pytest.mark.parametrize("classes", [NAMED, ("background", "liver"), ("background", "1", "2"), ()])
def test_the_same_or_no_names_are_taken_by_number(classes):
    numbers, said = _numbers(masks(*classes), NAMED)
    assert numbers[: len(classes)].tolist() == list(range(len(classes)))
    assert said == ()


def test_names_of_a_run_without_any_are_taken_by_number():
    assert _numbers(masks(*NAMED), ("background", "1", "2"))[1] == ()


@pytest.mark.parametrize(
    "classes", [("background", "kidney"), ("background", "liver", "kidney"), (*NAMED, "gall")]
)
def test_a_class_that_the_run_does_not_know_is_refused(classes):
    with pytest.raises(UsageError, match=f"the masks have the class '{classes[-1]}', and the run knows"):
        _numbers(masks(*classes), NAMED)


def test_labels_that_are_no_masks_have_no_classes_here():
    assert _numbers(Source(Spec("volume", (1, 8, 8, 8), ("x",)), ["a"]), NAMED)[1] == ()


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
