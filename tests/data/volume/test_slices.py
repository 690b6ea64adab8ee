import nibabel as nib
import numpy as np
import pytest
from scans import classes, save, scan, turned

from tacit.data.open import open_source
from tacit.data.source import Spec
from tacit.data.volume import slices as slices_module
from tacit.data.volume.volumes import Volumes
from tacit.errors import BadFile, UsageError


@pytest.fixture
def folder(tmp_path):
    """Two volumes of 8 x 8 x 5; the first and fourth slice of the second are black."""
    place = tmp_path / "scans"
    second = scan((8, 8, 5), 2, 1, 255)
    second[..., [0, 3]] = 0
    save(place / "train" / "p1.nii.gz", scan((8, 8, 5), 1, 0, 255))
    save(place / "train" / "p1_seg.nii.gz", classes((8, 8, 5)))
    save(place / "test" / "p2.nii.gz", second)
    return place


def test_slices_are_images(folder):
    source = open_source(f"slices:{folder}")
    assert source.spec == Spec("image", (1, 8, 8))
    seen = [*(f"test/p2/z{z:03d}" for z in (1, 2, 4)), *(f"train/p1/z{z:03d}" for z in range(5))]
    assert list(source.names) == seen
    assert source.groups.tolist() == [0] * 3 + [1] * 5
    assert source.labels.max() == -1
    assert {name: part.tolist() for name, part in source.splits.items()} == {
        "train": [3, 4, 5, 6, 7], "test": [0, 1, 2]}  # fmt: skip
    voxels = scan((8, 8, 5), 1, 0, 255).astype(float)
    grey = (voxels - voxels.min()) / np.ptp(voxels) * 255
    # x runs to the right, y upwards
    wanted = np.array([[grey[x, 7 - row, 4] for x in range(8)] for row in range(8)])
    np.testing.assert_allclose(source[7].data[0], wanted, atol=0.5001)
    assert source[0].data.dtype == source.batch([1]).data.dtype
    assert source[0].extra["true_size"].tolist() == [8, 8]


def test_the_window_says_what_is_black(folder):
    whole = open_source(f"slices:{folder}")
    cut = open_source(f"slices:{folder}", window="250,300")
    voxels = scan((8, 8, 5), 2, 1, 255)
    seen = [z for z in (1, 2, 4) if (voxels[..., z] > 250).any()]
    assert [name for name in cut.names if "p2" in name] == [f"test/p2/z{z:03d}" for z in seen]
    assert cut.fingerprint != whole.fingerprint
    assert open_source(f"slices:{folder}", size=12).spec.shape == (1, 12, 12)
    assert open_source(f"slices:{folder}", channels=3).spec.shape == (3, 8, 8)


def test_orientation_and_shape(tmp_path):
    voxels = scan((8, 6, 5), low=0)
    nib.save(turned(voxels, np.eye(4), "PSL"), tmp_path / "x.nii.gz")
    source = open_source(f"slices:{tmp_path}")
    assert len(source) == 5
    assert source[0].extra["true_size"].tolist() == [6, 8]


def test_several_channels_stay(tmp_path):
    save(tmp_path / "x.nii", scan((8, 8, 5, 2), low=0))
    source = open_source(f"slices:{tmp_path}")
    assert source.spec.shape == (2, 8, 8)
    second = scan((8, 8, 5, 2), low=0)[..., 3, 1].T[::-1]
    ranked = np.argsort(np.argsort(second.ravel(), kind="stable"), kind="stable")
    shown = source[3].data[1].numpy().ravel()
    assert (np.diff(shown[np.argsort(ranked)].astype(int)) >= 0).all()


def test_slices_are_decoded_once(folder, monkeypatch):
    first = open_source(f"slices:{folder}")

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(slices_module.Slices, "decode", refuse)
    assert open_source(f"slices:{folder}").fingerprint == first.fingerprint


def test_bad_volumes_of_slices(folder):
    (folder / "test" / "p3.nii").write_text("x")
    with pytest.raises(BadFile, match=r"test/p3\.nii: not a NIfTI file"):
        open_source(f"slices:{folder}")
    source = open_source(f"slices:{folder}", on_bad_file="skip")
    assert len(source) == 8
    assert source.skipped[0].name == "test/p3.nii"


def test_wrong_wishes(folder):
    with pytest.raises(UsageError, match="patch is for volumes; slices are images"):
        open_source(f"slices:{folder}", patch=8)
    with pytest.raises(UsageError, match="slices: names a folder of volumes"):
        open_source(f"slices:{folder / 'test' / 'p2.nii.gz'}")
    with pytest.raises(UsageError, match=r"no file or folder .*scan; did you mean 'scans'"):
        open_source(f"slices:{folder.with_name('scan')}")
    (folder.parent / "photos").mkdir()
    with pytest.raises(UsageError, match=r"no volumes in .*it is empty"):
        open_source(f"slices:{folder.parent / 'photos'}")


def archive(folder, side=16, **more):
    voxels = scan((4, side, side, side), low=0, high=255, dtype=np.uint8)
    np.savez(folder / "set.npz", train_images=voxels[:3], train_labels=np.array([[1], [0], [1]]),
             test_images=voxels[3:], test_labels=np.array([[2]]), **more)  # fmt: skip
    return folder / "set.npz", voxels


def test_an_archive_of_volumes_with_classes(tmp_path):
    path, voxels = archive(tmp_path)
    source = open_source(path)
    assert isinstance(source, Volumes)
    assert source.spec == Spec("volume", (1, 16, 16, 16), ("0", "1", "2"), "class")
    assert source.labels.tolist() == [1, 0, 1, 2]
    assert {name: part.tolist() for name, part in source.splits.items()} == {"train": [0, 1, 2], "test": [3]}
    assert list(source.names)[2:] == ["train/000002", "test/000000"]
    third = voxels[3].astype(float)
    wanted = (third - third.min()) / np.ptp(third)
    np.testing.assert_allclose(source.batch([3]).data[0, 0], wanted, atol=1e-6)
    assert not source.volume(3).has_mask
    assert open_source(path, window="0,255", patch=8).spec.shape == (1, 8, 8, 8)
    with pytest.raises(UsageError, match="masks are for a folder of volumes"):
        open_source(path, masks=tmp_path)


def test_an_archive_of_many_channel_images_stays_one_of_images(tmp_path):
    np.savez(tmp_path / "bands.npz", images=scan((2, 32, 32, 8), low=0, high=255, dtype=np.uint8))
    assert open_source(tmp_path / "bands.npz").spec.modality == "image"
    assert open_source(tmp_path / "bands.npz", patch=8).spec == Spec("volume", (1, 8, 8, 8))
    np.savez(tmp_path / "more.npz", images=scan((2, 32, 24, 20), low=0, high=255, dtype=np.uint8))
    assert open_source(tmp_path / "more.npz").spec.modality == "volume"
    assert open_source(tmp_path / "more.npz", channels=20).spec == Spec("image", (20, 28, 28))
    np.savez(tmp_path / "grey.npz", images=scan((2, 32, 24), low=0, high=255, dtype=np.uint8))
    with pytest.raises(UsageError, match=r"patch is for volumes, and .*grey\.npz holds images"):
        open_source(tmp_path / "grey.npz", patch=8)


def test_bad_volumes_of_an_archive(tmp_path):
    path, voxels = archive(tmp_path)
    voxels[1] = 3
    np.savez(path, images=voxels, labels=np.arange(4))
    with pytest.raises(BadFile, match="000001: all voxels are equal"):
        open_source(path)
    source = open_source(path, on_bad_file="skip")
    assert source.labels.tolist() == [0, 2, 3]
    np.savez(path, images=voxels, labels=np.arange(3))
    with pytest.raises(UsageError, match="labels has 3 labels for 4 volumes"):
        open_source(path, on_bad_file="skip")
