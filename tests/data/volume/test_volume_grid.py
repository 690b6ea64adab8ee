import itertools

import nibabel as nib
import numpy as np
import pytest
from scans import classes, oblique, save, scan, spread, turned, whole

from tacit.data.open import open_source
from tacit.data.volume.canvas import VolumeCanvas
from tacit.data.volume.volume import to_original
from tacit.errors import UsageError


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "AIL"])
def test_orientation_does_not_matter(tmp_path, codes):
    """The same anatomy, saved along other axes, is the same volume; its mask may lie along others again."""
    voxels, mask, affine = scan(), classes(), oblique()
    save(tmp_path / "a" / "images" / "x.nii.gz", voxels, affine)
    save(tmp_path / "a" / "labels" / "x.nii.gz", mask, affine)
    (tmp_path / "b" / "images").mkdir(parents=True)
    (tmp_path / "b" / "labels").mkdir()
    nib.save(turned(voxels, affine, codes), tmp_path / "b" / "images" / "x.nii.gz")
    nib.save(turned(mask, affine, "SRP"), tmp_path / "b" / "labels" / "x.nii.gz")
    a, b = (open_source(tmp_path / place).volume(0) for place in "ab")
    np.testing.assert_array_equal(whole(a)[0], spread(voxels).astype(np.float32))
    np.testing.assert_array_equal(whole(a), whole(b))
    np.testing.assert_array_equal(b.read_mask((0, 0, 0), b.shape), mask)
    np.testing.assert_allclose(b.affine, affine, atol=1e-5)
    np.testing.assert_allclose(b.spacing, (1.5, 1.0, 2.5), rtol=1e-5)


ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]


@pytest.mark.parametrize("codes", np.random.default_rng(0).choice(ORIENTATIONS, 8, replace=False).tolist())
def test_a_mask_goes_back_onto_its_file(tmp_path, codes):
    """Thresholded on our grid or on the file's, it is the same mask, voxel for voxel."""
    image = turned(scan(seed=5), oblique(), codes)
    nib.save(image, tmp_path / "x.nii.gz")
    volume = open_source(tmp_path).volume(0)
    array, affine, header = to_original((whole(volume)[0] > 0.5).astype(np.uint8), volume)
    nib.save(nib.Nifti1Image(array, affine, header), tmp_path / "x_seg.nii.gz")
    saved = nib.load(tmp_path / "x_seg.nii.gz")
    np.testing.assert_array_equal(saved.affine, nib.load(tmp_path / "x.nii.gz").affine)
    assert saved.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(saved.affine) == tuple(codes)
    wanted = spread(np.asarray(image.dataobj)).astype(np.float32) > 0.5
    np.testing.assert_array_equal(np.asarray(saved.dataobj), wanted)
    again = open_source(tmp_path).volume(0)  # and it is read as the mask of its volume
    np.testing.assert_array_equal(again.read_mask((0, 0, 0), again.shape), whole(volume)[0] > 0.5)


def test_the_way_back_of_scaled_and_of_four_dimensional_files(tmp_path):
    image = nib.Nifti1Image(scan((5, 4, 3, 2)).astype(np.float32), np.diag([2, -2, 2, 1]))
    image.header.set_data_dtype(np.int16)
    image.header["cal_max"] = 800
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "x.nii")
    volume = open_source(tmp_path).volume(0)
    assert volume.channels == 2
    mask = classes((5, 4, 3), count=200)
    array, affine, header = to_original(mask, volume)
    nib.save(nib.Nifti1Image(array, affine, header), tmp_path / "back.nii")
    saved = nib.load(tmp_path / "back.nii")
    assert header.get_slope_inter() == (1, 0)  # the file's own values are scaled
    assert saved.shape == (5, 4, 3)
    assert (saved.header["cal_max"], np.isnan(saved.header["scl_slope"])) == (0, True)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), mask[:, ::-1])
    with pytest.raises(UsageError, match=r"the mask of x\.nii has shape \(5, 4\), the volume \(5, 4, 3\)"):
        to_original(mask[..., 0], volume)


def test_resampling(tmp_path):
    """2 x 1 x 3 mm to 1 x 1 x 1.5 mm, and back to where each voxel came from."""
    voxels = np.tile(np.array([10, 20, 40, 80], np.int16)[:, None, None], (1, 3, 2))
    voxels[0, 0, 0] = 0  # the window
    affine = np.diag([2.0, 1, 3, 1])
    mask = classes((4, 3, 2))
    (tmp_path / "images").mkdir()
    nib.save(turned(voxels, affine, "LSP"), tmp_path / "images" / "x.nii")
    save(tmp_path / "labels" / "x.nii", mask, affine)
    source = open_source(tmp_path, spacing=(1, 1, 1.5))
    volume = source.volume(0)
    assert volume.shape == (8, 3, 4)
    assert source.spacing == (1, 1, 1.5)
    np.testing.assert_allclose(volume.spacing, (1, 1, 1.5))
    # new voxels lie at a quarter and three quarters of the old ones: -0.25, 0.25, 0.75, ... of old numbers
    line = np.interp(np.arange(8) * 0.5 - 0.25, np.arange(4), [10, 20, 40, 80]) / 80
    np.testing.assert_allclose(whole(volume)[0, :, 2, 1], line, atol=1e-6)
    # the first new voxel's centre lies a quarter of an old one below the first old one's
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [-0.5, 0, -0.75, 1])
    seen = volume.read_mask((0, 0, 0), volume.shape).numpy()
    np.testing.assert_array_equal(seen, mask.repeat(2, 0).repeat(2, 2))
    array, affine, header = to_original(seen.astype(np.uint8), volume)
    file = nib.load(tmp_path / "images" / "x.nii")
    assert array.shape == file.shape
    np.testing.assert_array_equal(affine, file.affine)
    back = nib.as_closest_canonical(nib.Nifti1Image(array, affine, header))
    np.testing.assert_array_equal(np.asarray(back.dataobj), mask)


def test_coarser_grids_keep_the_field_of_view(tmp_path):
    save(tmp_path / "x.nii", scan((40, 21, 3)), np.diag([0.5, 1, 5, 1]))
    volume = open_source(tmp_path, spacing=2).volume(0)
    assert volume.shape == (10, 10, 8)  # 20, 21 and 15 mm in steps of 2
    mask = np.zeros(volume.shape, np.uint8)
    mask[3] = 1
    array, _, _ = to_original(mask, volume)
    assert array.shape == (40, 21, 3)
    assert np.flatnonzero(array[:, 0, 0]).tolist() == [12, 13, 14, 15]
    # a difference that is rounding alone is none
    assert open_source(tmp_path, spacing=(0.50001, 1, 5)).volume(0).spacing == (0.5, 1, 5)


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize(
    ("kind", "header"), [(nib.Nifti1Image, nib.Nifti1Header), (nib.Nifti2Image, nib.Nifti2Header)]
)
def test_a_written_mask_is_a_file_as_its_volume(tmp_path, caplog, kind, header, endianness):
    """On a sheared grid whose axes are permuted and flipped; without a word about the header."""
    affine = np.array([[0, 0, -2, 8.0], [1.5, 0, 1, -4], [0, -1.2, 0, 3], [0, 0, 0, 1]])
    for name, voxels in (("a", scan()), ("a_seg", classes())):
        image = kind(voxels, affine, header(endianness=endianness))
        image.set_data_dtype(voxels.dtype)
        nib.save(image, tmp_path / f"{name}.nii")
    caplog.clear()
    volume = open_source(tmp_path).volume(0)
    mask = volume.read_mask((0, 0, 0), volume.shape).numpy()
    VolumeCanvas(volume, (8, 8, 8)).write(mask, tmp_path / "out.nii.gz")
    assert caplog.records == []
    out = nib.load(tmp_path / "out.nii.gz")
    assert type(out) is kind
    np.testing.assert_array_equal(np.asarray(out.dataobj), classes())
    np.testing.assert_allclose(out.affine, affine, atol=1e-6)
