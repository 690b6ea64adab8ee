"""The size of sheared voxels, and how masks are called."""

import nibabel as nib
import numpy as np
import pytest

from tacit.data.open import open_source
from tacit.data.volume.canvas import VolumeCanvas
from tacit.tasks.masks.predict import _target


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
