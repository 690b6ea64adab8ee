"""Which of a NIfTI header's two forms is taken, and what is said of it."""

import re
import struct

import nibabel as nib
import numpy as np
import pytest
from scans import classes, save, scan

from tacit.data.open import open_source
from tacit.data.volume.volume import to_original
from tacit.errors import BadFile

QCODE, SCODE, SFORM, QUATERNION, OFFSET, PIXDIM, UNITS = 252, 254, 280, 256, 268, 76, 123
SPACING = ("<4f", PIXDIM, -1, 2, 3, 4)  # the sign of the first: z is turned round
TURNED = ("<3f", QUATERNION, 0, 0, 1)  # half a turn about z: x to the left, y to the back
MOVED = ("<3f", OFFSET, 10, 20, 30)
QFORM = [("<h", QCODE, 1), SPACING, TURNED, MOVED]
BY_QFORM = [[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, -4, 30], [0, 0, 0, 1]]
NO_SFORM = [("<h", SCODE, 0)]
EMPTY = [("<h", SCODE, 1), ("<12f", SFORM, *[0] * 12)]


def edited(path, edits, voxels=None):
    raw = bytearray(save(path, scan() if voxels is None else voxels).read_bytes())
    for form, at, *values in edits:
        struct.pack_into(form, raw, at, *values)
    path.write_bytes(raw)
    return path


def origin(source):
    return source.stored[0].facts.origin_affine


@pytest.mark.parametrize(
    ("edits", "affine", "note"),
    [
        ([*QFORM, *NO_SFORM], BY_QFORM, ""),
        ([*QFORM, *EMPTY], BY_QFORM, r"a damaged sform \(a spacing of 0 x 0 x 0 mm\): its qform is taken"),
        ([*QFORM, ("<h", SCODE, 1), ("<f", SFORM, np.nan)], BY_QFORM,
         r"a damaged sform \(it holds NaN or infinite numbers\): its qform is taken"),
        ([*QFORM, ("<h", SCODE, 1), ("<12f", SFORM, *[1] * 12)], BY_QFORM, r"a damaged sform \(singular"),
        ([*QFORM], np.eye(4), "a qform that differs from its sform: the sform is taken"),
        ([("<h", QCODE, 1), ("<3f", QUATERNION, 3, 3, 3)], np.eye(4), "a damaged qform: its sform is taken"),
        ([("<h", QCODE, 1)], np.eye(4), ""),
        ([("<4f", PIXDIM, 1, 2, 2, 2)], np.eye(4), "a sform of another spacing than its pixdim"),
        ([*NO_SFORM, ("<4f", PIXDIM, 1, 2, 3, 4)],
         [[-2, 0, 0, 8], [0, 3, 0, -10.5], [0, 0, 4, -12], [0, 0, 0, 1]], "no orientation"),
        ([("<b", UNITS, 3)], np.eye(4), "micrometres as the unit of its header"),
    ],
)  # fmt: skip
def test_forms(tmp_path, edits, affine, note):
    edited(tmp_path / "x.nii", edits)
    source = open_source(tmp_path)
    np.testing.assert_allclose(origin(source), affine, atol=1e-5)
    if not note:
        assert source.notes == ()
    else:
        (said,) = source.notes
        assert said.startswith("x.nii has ")
        assert re.search(note, said)


def test_a_first_pixdim_of_0_is_taken_as_1(tmp_path):
    edited(tmp_path / "x.nii", [*QFORM, *NO_SFORM, ("<f", PIXDIM, 0)])
    np.testing.assert_allclose(origin(open_source(tmp_path))[2], [0, 0, 4, 30], atol=1e-5)


@pytest.mark.parametrize("sform", [EMPTY, NO_SFORM, [("<h", SCODE, 1), ("<f", SFORM, np.nan)]])
def test_a_mask_is_written_where_its_volume_is(tmp_path, sform):
    edited(tmp_path / "x.nii", [*QFORM, *sform])
    volume = open_source(tmp_path).volume(0)
    array, affine, header = to_original(classes(volume.shape), volume)
    nib.save(nib.Nifti1Image(array, affine, header), tmp_path / "x_seg.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "x_seg.nii").affine, BY_QFORM, atol=1e-5)
    again = open_source(tmp_path).volume(0)
    np.testing.assert_array_equal(again.read_mask((0, 0, 0), again.shape), classes(volume.shape))


def test_both_forms_damaged_are_one_line(tmp_path):
    edited(tmp_path / "x.nii", [*QFORM, *EMPTY, ("<3f", QUATERNION, 3, 3, 3)])
    with pytest.raises(BadFile, match=r"wrong affine: its qform is damaged \(w2 should be positive"):
        open_source(tmp_path)


def test_a_mask_by_its_qform_and_several_of_a_kind(tmp_path):
    for name in "ab":
        edited(tmp_path / f"{name}.nii", [*QFORM, *EMPTY])
    edited(tmp_path / "c.nii", [*QFORM, *NO_SFORM])
    edited(tmp_path / "c_seg.nii", [*QFORM, *EMPTY], classes())
    source = open_source(tmp_path)
    assert source.labels.tolist() == [-1, -1, 0]
    assert [note.split(" (a spacing")[0] for note in source.notes] == [
        "2 volumes (such as a.nii) have a damaged sform",
        "c.nii has a mask with a damaged sform",
    ]
