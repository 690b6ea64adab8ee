import gzip
import struct

import h5py
import nibabel as nib
import numpy as np
import pytest
from scans import classes, oblique, save, scan

from tacit.data.open import open_source
from tacit.data.volume.files import extension_of, read_volume
from tacit.data.volume.store import compact
from tacit.errors import BadFile, UsageError


def whole(folder):
    volume = open_source(folder, window="-50,1000").volume(0)
    return volume.read((0, 0, 0), volume.shape).numpy()


def expected(voxels):
    return ((voxels.astype(float) + 50) / 1050).clip(0, 1)


def patched(path, edits):
    """The NIfTI file with numbers of its header overwritten: (format, place, values)."""
    raw = bytearray(path.read_bytes())
    for form, place, *values in edits:
        struct.pack_into(form, raw, place, *values)
    path.write_bytes(raw)


def write_hdf5(path, voxels, mask=None, spacing=None, names=("image", "label")):
    with h5py.File(path, "w") as file:
        file[names[0]] = voxels
        if mask is not None:
            file[names[1]] = mask
        if spacing is not None:
            file.attrs["spacing"] = spacing


def test_extensions():
    assert [extension_of(name) for name in ("a.nii", "a.NII.GZ", "b/c.h5", "x.npz", ".nii.gz", "a.gz")] == [
        ".nii", ".nii.gz", ".h5", ".npz", ".gz"[:0], ""]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_of_all_types(tmp_path, dtype, kind):
    voxels = scan(low=0, high=200, dtype=dtype)
    if dtype == np.float32:
        voxels += np.float32(0.25)
    save(tmp_path / "a.nii.gz", voxels, kind=kind)
    np.testing.assert_allclose(whole(tmp_path)[0], expected(voxels), atol=1e-6)


def test_the_other_byte_order_and_scaled_values(tmp_path):
    voxels = scan()
    image = nib.Nifti1Image(voxels.astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    seen = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    assert seen.dtype == np.float64
    np.testing.assert_allclose(whole(tmp_path)[0], expected(seen), atol=1e-6)


def test_names_do_not_have_to_tell_whether_it_is_compressed(tmp_path):
    raw = save(tmp_path / "kept" / "a.nii", scan()).read_bytes()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.nii").write_bytes(gzip.compress(raw))
    (tmp_path / "x" / "b.nii.gz").write_bytes(raw)
    source = open_source(tmp_path / "x")
    assert source.batch([0]).data.equal(source.batch([1]).data)


def test_axes_of_one_entry_are_dropped_and_a_short_fourth_one_are_channels(tmp_path):
    save(tmp_path / "a" / "x.nii", scan((5, 4, 3, 1)))
    assert whole(tmp_path / "a").shape == (1, 5, 4, 3)
    save(tmp_path / "b" / "x.nii", scan((5, 4, 3, 1, 2)))
    save(tmp_path / "b" / "x_seg.nii", classes((5, 4, 3, 1)))
    seen = whole(tmp_path / "b")
    np.testing.assert_allclose(
        seen, expected(np.moveaxis(scan((5, 4, 3, 1, 2))[:, :, :, 0], 3, 0)), atol=1e-6
    )


@pytest.mark.parametrize("names", [("image", "label"), ("volume", "mask"), ("data", "seg")])
@pytest.mark.parametrize("kind", ["a.h5", "a.hdf5", "a.npz"])
def test_arrays_with_masks_inside(tmp_path, names, kind):
    voxels, mask = scan(), classes()
    if kind == "a.npz":
        np.savez(tmp_path / kind, **{names[0]: voxels, names[1]: mask, "spacing": [0.5, 1, 2]})
    else:
        write_hdf5(tmp_path / kind, voxels, mask, (0.5, 1, 2), names)
    source = open_source(tmp_path)
    volume = source.volume(0)
    assert volume.spacing == (0.5, 1, 2)
    assert source.spec.classes == ("background", "1", "2")
    np.testing.assert_allclose(whole(tmp_path)[0], expected(voxels), atol=1e-6)
    np.testing.assert_array_equal(volume.read_mask((0, 0, 0), volume.shape), mask)


def test_a_mask_of_another_kind_of_file(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    save(tmp_path / "images" / "a.nii.gz", scan(), oblique())
    np.savez(tmp_path / "labels" / "a.npz", label=classes())
    write_hdf5(tmp_path / "images" / "b.h5", scan())
    save(tmp_path / "labels" / "b.nii", classes().astype(np.float32) + 1e-5)
    source = open_source(tmp_path)
    for i in range(2):
        np.testing.assert_array_equal(source.volume(i).read_mask((0, 0, 0), (9, 8, 7)), classes())


SHAPE = (9, 8, 7)
EMPTY_SFORM = [("<h", 252, 0), ("<h", 254, 1), ("<12f", 280, *[0] * 12)]
NO_FORM = [("<h", 252, 0), ("<h", 254, 0)]


def spoilt(value):
    voxels = scan(dtype=np.float32)
    voxels[1, 2, 3] = value
    return voxels


def colours(p):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(p / "x.nii", np.ones((4, 4, 4), kind))


def cut_short(p):
    data = save(p / "x.nii.gz", scan((20, 20, 20))).read_bytes()
    (p / "x.nii.gz").write_bytes(data[: len(data) // 2])


def flipped(p):
    """Bits that fell over, which only the checksum at the end of the file tells."""
    data = bytearray(save(p / "x.nii.gz", np.zeros(SHAPE, np.int16) + scan()).read_bytes())
    data[-8] ^= 1
    (p / "x.nii.gz").write_bytes(data)


def truncated(p):
    data = save(p / "x.nii", scan()).read_bytes()
    (p / "x.nii").write_bytes(data[:-100])


def pair(p):
    path = save(p / "x.nii", scan())
    patched(path, [("4s", 344, b"ni1\0")])


BAD = {
    "text": (lambda p: (p / "x.nii.gz").write_text("hello world"),
             "not a NIfTI file: it starts with b'hello wo'"),
    "empty": (lambda p: (p / "x.nii.gz").write_bytes(b""), r"empty file \(0 bytes\)"),
    "empty .h5": (lambda p: (p / "x.h5").write_bytes(b""), r"empty file \(0 bytes\)"),
    "empty .npz": (lambda p: (p / "x.npz").write_bytes(b""), r"empty file \(0 bytes\)"),
    "text .h5": (lambda p: (p / "x.h5").write_text("hello"), "damaged: .*signature"),
    "text .npz": (lambda p: (p / "x.npz").write_text("hello"), "not an .npz file: it starts with b'hello'"),
    "damaged .npz": (lambda p: (p / "x.npz").write_bytes(b"PK\3\4 and nothing"), "damaged: "),
    "cut gz": (cut_short, "truncated: its compressed data end too early"),
    "checksum": (flipped, "damaged: CRC check failed"),
    "cut": (truncated, "truncated: 908 of 1008 bytes of voxels"),
    "pair": (pair, "the header of a .hdr and .img pair"),
    "NaN": (lambda p: save(p / "x.nii", spoilt(np.nan)), "1 of 504 voxels are NaN or infinite"),
    "infinite": (lambda p: save(p / "x.nii", spoilt(-np.inf)), "1 of 504 voxels are NaN or infinite"),
    "too large": (lambda p: save(p / "x.nii", spoilt(0).astype(float) * 1e37),
                  "they do not fit into 32 bits"),
    "constant": (lambda p: save(p / "x.nii", np.full(SHAPE, 7, np.int16)), "all voxels are equal"),
    "flat": (lambda p: save(p / "x.nii", scan((9, 8))), r"shape \(9, 8\): a volume has three axes"),
    "flat .npz": (lambda p: np.savez(p / "x.npz", image=scan((9, 8))), "a volume has three axes"),
    "no entries": (lambda p: np.savez(p / "x.npz", image=np.zeros((3, 0, 3))), "a volume has three axes"),
    "series": (lambda p: save(p / "x.nii", scan((4, 4, 4, 120))),
               r"4D \(120 time points, or channels\): choose one volume, e.g. save it on its own"),
    "five axes": (lambda p: save(p / "x.nii", scan((4, 4, 4, 2, 3))), "three axes, and perhaps channels"),
    "colours": (colours, "coloured voxels"),
    "complex": (lambda p: save(p / "x.nii", scan(dtype=np.complex64)), "dtype complex64: real numbers"),
    "zero affine": (lambda p: patched(save(p / "x.nii", scan()), EMPTY_SFORM),
                    "wrong affine: a spacing of 0 x 0 x 0 mm"),
    "no spacing": (lambda p: patched(save(p / "x.nii", scan()), [*NO_FORM, ("<4f", 76, 1, 1, 0, 1)]),
                   "wrong affine: a spacing of 1 x 0 x 1 mm"),
    "negative spacing": (lambda p: patched(save(p / "x.nii", scan()), [*NO_FORM, ("<4f", 76, 1, 1, -2, 1)]),
                         "wrong affine: a spacing of 1 x -2 x 1 mm"),
    "no numbers": (lambda p: patched(save(p / "x.nii", scan()), [("<h", 254, 1), ("<f", 280, np.nan)]),
                   "wrong affine: it holds NaN or infinite numbers"),
    "singular": (lambda p: patched(save(p / "x.nii", scan()),
                                   [("<h", 254, 1), ("<12f", 280, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0)]),
                 "wrong affine: singular"),
    "quaternion": (lambda p: patched(save(p / "x.nii", scan()),
                                     [("<h", 252, 1), ("<h", 254, 0), ("<3f", 256, 3, 3, 3)]),
                   "wrong affine: "),
    "spacing .h5": (lambda p: write_hdf5(p / "x.h5", scan(), spacing=(1, 0, 1)), "spacing is 1 x 0 x 1 mm"),
    "spacing of two": (lambda p: write_hdf5(p / "x.h5", scan(), spacing=(1, 2)), "three numbers in mm"),
    "other arrays": (lambda p: np.savez(p / "x.npz", vol=scan(), lab=scan()),
                     "no array called image, volume, data: it holds lab, vol"),
    "mask only": (lambda p: np.savez(p / "x.npz", label=classes()),
                  "no array called image or volume or data"),
    "objects": (lambda p: np.savez(p / "x.npz", image=np.array([{}], object)), "damaged: Object arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_volumes_are_named_in_one_line(tmp_path, case, capfd):
    write, message = BAD[case]
    write(tmp_path)
    with pytest.raises(BadFile, match=message) as caught:
        open_source(tmp_path)
    assert str(caught.value).startswith("x.")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # libraries say nothing of their own


def shifted(by):
    affine = np.eye(4)
    affine[0, 3] = by
    return affine


def half_zoom():
    return np.diag([1.2, 1, 1, 1])


def write_mask(voxels, affine=None):
    return lambda p: save(p / "x_seg.nii", voxels, affine)


BAD_MASKS = {
    "shape": (write_mask(classes((9, 7, 8))), r"its mask has shape \(9, 7, 8\), the volume \(9, 8, 7\)"),
    "channels": (write_mask(classes((9, 8, 7, 2))), r"its mask has shape \(9, 8, 7, 2\): three axes"),
    "negative": (write_mask(scan()), r"its mask holds -\d+: classes are whole numbers from 0 to 255"),
    "large": (write_mask(classes().astype(np.int16) * 300), "its mask holds 600: classes are whole numbers"),
    "fractions": (write_mask(classes() * np.float32(0.5)), "its mask holds 0.5: classes are whole numbers"),
    "NaN": (write_mask(classes() * np.float32("nan")), "its mask holds nan: classes are whole numbers"),
    "elsewhere": (write_mask(classes(), shifted(12)), "its mask lies 12.0 voxels off: the affines"),
    "another spacing": (write_mask(classes(), half_zoom()), "its mask lies 1.6 voxels off"),
    "text": (lambda p: (p / "x_seg.nii").write_text("hello"), "its mask x_seg.nii: not a NIfTI file"),
    "zero affine": (lambda p: patched(save(p / "x_seg.nii", classes()), EMPTY_SFORM),
                    "its mask x_seg.nii: wrong affine"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_are_named_in_one_line(tmp_path, case):
    write, message = BAD_MASKS[case]
    save(tmp_path / "x.nii", scan())
    write(tmp_path)
    with pytest.raises(BadFile, match=message) as caught:
        open_source(tmp_path)
    assert str(caught.value).startswith("x.nii: ")
    assert "\n" not in str(caught.value)


def test_less_than_half_a_voxel_is_let_pass(tmp_path):
    save(tmp_path / "x.nii", scan())
    save(tmp_path / "x_seg.nii", classes(), shifted(0.4))
    assert open_source(tmp_path).labels.tolist() == [0]


def test_two_masks_of_one_volume(tmp_path):
    np.savez(tmp_path / "x.npz", image=scan(), label=classes())
    save(tmp_path / "x_seg.nii", classes())
    with pytest.raises(BadFile, match=r"x\.npz: it holds a mask, and x_seg\.nii is another"):
        open_source(tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    save(tmp_path / "x.nii", scan())
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(UsageError, match=r"needs the package 'nibabel'.*tacit\[volumes\]"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([0.0, 255.0]), np.uint8),
        (np.array([-1, 255]), np.int16),
        (np.array([0, 40_000], np.int64), np.uint16),
        (np.array([-1, 2**24 + 1], np.int64), np.int32),
        (np.array([0.5, 1.0]), np.float32),
        (np.array([0, 2**40], np.int64), np.float32),
        (np.array([False, True]), np.uint8),
    ],
)
def test_the_smallest_type_that_loses_nothing(values, kind):
    small = compact("x", values)
    assert small.dtype == kind
    np.testing.assert_array_equal(small.astype(np.float64), values.astype(np.float64))


def test_a_good_qform_beside_an_empty_sform_places_the_volume(tmp_path):
    good, path = oblique(), tmp_path / "a.nii"
    image = nib.Nifti1Image(scan(), good)
    image.set_qform(good, 1)
    nib.save(image, path)
    patched(path, [("<12f", 280, *np.diag([2.0, 2.0, 2.0, 1.0])[:3].ravel())])
    np.testing.assert_allclose(read_volume(path, "a.nii").affine, np.diag([2.0, 2, 2, 1]))
    patched(path, [("<12f", 280, *[0.0] * 12)])
    np.testing.assert_allclose(read_volume(path, "a.nii").affine, good, atol=1e-4)
    patched(path, [("<h", 252, 0)])  # no qform either
    with pytest.raises(BadFile, match="a spacing of 0 x 0 x 0 mm"):
        read_volume(path, "a.nii")
