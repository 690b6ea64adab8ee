import copy
import os
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import classes, decathlon, save, scan, spread, whole

from tacit.data.open import open_source
from tacit.data.source import Skipped, Spec
from tacit.data.volume import store as volume_store
from tacit.data.volume.volumes import Volumes, default_patch
from tacit.errors import BadFile, TacitError, UsageError


def test_a_decathlon_becomes_a_source(tmp_path):
    source = open_source(decathlon(tmp_path))
    assert isinstance(source, Volumes)
    assert list(source.names) == [*(f"imagesTr/case_{i}.nii.gz" for i in range(3)), "imagesTs/case_9.nii.gz"]
    assert source.labels.tolist() == [0, 0, 0, -1]
    assert source.labels.dtype == np.int64
    assert source.spec == Spec("volume", (1, 16, 16, 16), ("background", "1", "2"), "mask")
    assert source.splits == {}
    assert source.shapes.tolist() == [[9, 8, 7]] * 4
    sample = source[-1]
    assert (sample.index, sample.label, sample.name) == (3, -1, "imagesTs/case_9.nii.gz")
    assert sample.target is None
    assert not sample.volume.has_mask
    with pytest.raises(UsageError, match=r"imagesTs/case_9\.nii\.gz has no mask"):
        sample.volume.read_mask((0, 0, 0), (1, 1, 1))
    with pytest.raises(IndexError):
        source[4]
    volume = source.volume(1)
    np.testing.assert_allclose(source[1].data.numpy()[0], spread(scan(seed=1)), atol=1e-6)
    mask = volume.read_mask((0, 0, 0), volume.shape)
    assert mask.dtype == torch.int64
    np.testing.assert_array_equal(mask, classes(seed=1))
    assert (volume.shape, volume.channels, volume.spacing) == ((9, 8, 7), 1, (1, 1, 1))


def test_boxes_are_those_of_numpy_with_zeros_around(tmp_path):
    shape = (6, 5, 4)
    voxels, mask = scan((*shape, 2)), classes(shape)
    save(tmp_path / "images" / "a.nii", voxels)
    save(tmp_path / "labels" / "a.nii", mask)
    volume = open_source(tmp_path).volume(0)
    around = [(9, 9)] * 3
    image = np.stack([np.pad(spread(voxels[..., c]), around) for c in range(2)])
    labels = np.pad(mask.astype(np.int64), around)

    @settings(max_examples=60, deadline=None)
    @given(st.tuples(*[st.integers(-9, 8)] * 3), st.tuples(*[st.integers(1, 10)] * 3))
    def compare(start, size):
        box = tuple(slice(a + 9, a + 9 + n) for a, n in zip(start, size, strict=True))
        wanted = np.zeros((2, *size))
        part = image[(slice(None), *box)]
        wanted[:, : part.shape[1], : part.shape[2], : part.shape[3]] = part
        read = volume.read(start, size)
        assert read.dtype == torch.float32
        np.testing.assert_allclose(read.numpy(), wanted, atol=1e-6)
        part = labels[box]
        wanted = np.zeros(size, np.int64)
        wanted[: part.shape[0], : part.shape[1], : part.shape[2]] = part
        np.testing.assert_array_equal(volume.read_mask(start, size), wanted)

    compare()


def test_windows(tmp_path):
    voxels = np.zeros((10, 10, 10), np.float32)
    voxels.flat[:500] = np.arange(500)
    voxels.flat[500] = 1e6
    save(tmp_path / "x.nii", voxels)

    def seen(window):
        return whole(open_source(tmp_path, window=window).volume(0))[0]

    np.testing.assert_allclose(seen(None), voxels / 1e6, atol=1e-7)
    np.testing.assert_array_equal(seen("minmax"), seen(None))
    low, high = np.percentile(voxels, (0.5, 99.5))
    np.testing.assert_allclose(seen("percentile"), ((voxels - low) / (high - low)).clip(0, 1), atol=1e-6)
    np.testing.assert_allclose(seen("-100,400"), ((voxels + 100) / 500).clip(0, 1), atol=1e-6)
    assert open_source(tmp_path, window="-100,400").window == "-100.0,400.0"
    # outside of the volume is 0, the low end of the window, not the value 0
    assert open_source(tmp_path, window="-100,400").volume(0).read((-1, 0, 0), (1, 1, 1)).item() == 0
    with pytest.raises(BadFile, match=r"its values, from 0 to 1e\+06, lie outside of the window -9,-1"):
        open_source(tmp_path, window="-9,-1")
    for wrong in ("minmaxx", "1", "1,2,3", "a,b"):
        with pytest.raises(UsageError, match=f"the window is minmax, percentile or LOW,HIGH, not '{wrong}'"):
            open_source(tmp_path, window=wrong)
    with pytest.raises(UsageError, match="first number must be below its second, not 5,5"):
        open_source(tmp_path, window="5,5")


def test_a_sparse_volume_keeps_its_few_voxels_in_the_percentile_window(tmp_path):
    voxels = np.zeros((10, 10, 10, 2), np.int16)
    voxels[3, 3, 3, 0] = 7
    save(tmp_path / "x.nii", voxels)
    seen = whole(open_source(tmp_path, window="percentile").volume(0))
    assert (seen[0, 3, 3, 3], seen[0].sum()) == (1, 1)
    assert not seen[1].any()  # a channel of one value is 0, not NaN


def test_patches(tmp_path):
    assert default_patch(np.array([[35, 51, 35], [100, 10, 96], [40, 52, 200]])) == (32, 48, 96)
    save(tmp_path / "x.nii", scan((20, 5, 18)))
    source = open_source(tmp_path)
    assert source.patch == (16, 16, 16)
    batch = source.batch([0, -1])
    assert batch.index.tolist() == [0, -1]
    assert batch.data.shape == (2, 1, 16, 16, 16)
    data = source[0].data
    patch = batch.data[1]
    assert torch.equal(patch[:, :, 6:11], data[:, 2:18, :, 1:17])  # 5 sides end in the middle of 16
    assert not patch[:, :, :6].any()
    assert not patch[:, :, 11:].any()
    smaller = source.with_patch((4, 5, 6))
    assert smaller.spec.shape == (1, 4, 5, 6)
    assert torch.equal(smaller.batch(torch.tensor([0])).data[0], data[:, 8:12, :, 6:12])
    assert source.spec.shape == (1, 16, 16, 16)
    assert open_source(tmp_path, patch=(4, 5, 6)).spec.shape == (1, 4, 5, 6)
    assert open_source(source, patch=(4, 5, 6)).patch == (4, 5, 6)
    assert open_source(tmp_path, patch=8).patch == (8, 8, 8)
    assert source.batch([]).data.shape == (0, 1, 16, 16, 16)
    with pytest.raises(UsageError, match="patch must be three whole numbers above 0"):
        source.with_patch((4, 5))
    with pytest.raises(UsageError, match="patch must be whole numbers above 0, not 4,0,4"):
        open_source(tmp_path, patch=(4, 0, 4))
    with pytest.raises(UsageError, match="spacing is three numbers, or one for all axes, not 2"):
        open_source(tmp_path, spacing=(1, 1))


def test_subsets_keep_the_numbers_of_the_whole(tmp_path):
    source = open_source(decathlon(tmp_path))
    part = source.subset(np.array([3, 1]))
    assert part[1].index == 1
    assert part[1].label == 0
    assert part.batch([0]).index.tolist() == [3]
    assert part.spec == source.spec
    assert torch.equal(part.batch([1]).data, source.batch([1]).data)


def test_samples_and_sources_are_pickled_small(tmp_path):
    source = open_source(decathlon(tmp_path))
    packed = pickle.dumps(source)
    assert len(packed) < 8_000
    other = pickle.loads(packed)
    assert torch.equal(other.batch([2]).data, source.batch([2]).data)
    for sample in (pickle.loads(pickle.dumps(source[1])), copy.copy(source[1])):
        assert (sample.index, sample.label, sample.name) == (1, 0, "imagesTr/case_1.nii.gz")
        assert torch.equal(sample.data, source[1].data)
    assert "case_1" in repr(source[1])


def test_labels_of_volumes(tmp_path):
    decathlon(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\ncase_0,ill\ncase_1.nii.gz,well\ncase_9,ill\n")
    source = open_source(tmp_path, labels=tmp_path / "labels.csv", groups="re:case_[01]|case")
    assert source.spec.classes == ("ill", "well")
    assert source.spec.target == "class"
    assert source.labels.tolist() == [0, 1, -1, 0]
    assert [source[i].label for i in range(4)] == [0, 1, -1, 0]
    assert len(set(source.groups.tolist())) == 3
    hidden = open_source(tmp_path, labels="none")
    assert (hidden.labels.tolist(), hidden.spec.classes, hidden.spec.target) == ([-1] * 4, (), "class")


def test_the_store_is_used_again_and_only_what_changed_is_decoded(tmp_path, cache, monkeypatch):
    decathlon(tmp_path)
    source = open_source(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (cache / "volumes").iterdir()}
    assert len(files) == 4 * 2 + 3
    decoded = []
    decode = volume_store.decode

    def noted(case, spacing):
        decoded.append(case.name)
        return decode(case, spacing)

    monkeypatch.setattr(volume_store, "decode", noted)
    assert open_source(tmp_path, window="percentile").fingerprint == source.fingerprint
    assert decoded == []
    assert {path: path.stat().st_mtime_ns for path in (cache / "volumes").iterdir()} == files
    save(tmp_path / "imagesTr" / "case_5.nii.gz", scan(seed=6))
    changed = save(tmp_path / "labelsTr" / "case_1.nii.gz", classes(seed=77, count=5))
    os.utime(changed, ns=(1, 1))
    other = open_source(tmp_path)
    assert sorted(decoded) == ["imagesTr/case_1.nii.gz", "imagesTr/case_5.nii.gz"]
    assert len(other.spec.classes) == 5
    assert other.fingerprint != source.fingerprint
    open_source(tmp_path, spacing=2)
    assert len(decoded) == 2 + 5
    stem = other.volume(0).stored.stem
    stem.with_name(f"{stem.name}.json").write_text("{")  # damaged: decoded again
    open_source(tmp_path)
    open_source(tmp_path, spacing=2)
    assert len(decoded) == 2 + 5 + 1


def test_the_fingerprint_is_of_the_content(tmp_path):
    source = open_source(decathlon(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").rglob("*.gz"):
        os.utime(path, ns=(5, 5))
    assert open_source(tmp_path / "b").fingerprint == source.fingerprint
    assert open_source(tmp_path / "b", spacing=2).fingerprint == source.fingerprint
    save(tmp_path / "b" / "labelsTr" / "case_1.nii.gz", classes(seed=78))
    assert open_source(tmp_path / "b").fingerprint != source.fingerprint


def test_decoding_that_was_stopped_goes_on(tmp_path, cache, monkeypatch):
    decathlon(tmp_path, count=5)
    decoded = []
    decode = volume_store.decode

    def stopped(case, spacing):
        if len(decoded) == 2:
            raise KeyboardInterrupt
        decoded.append(case.name)
        return decode(case, spacing)

    monkeypatch.setattr(volume_store, "decode", stopped)
    with pytest.raises(KeyboardInterrupt):
        open_source(tmp_path, workers=1)
    left = cache / "volumes" / ".abandoned.npy.x"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    again = []
    monkeypatch.setattr(volume_store, "decode", lambda c, s: again.append(c.name) or decode(c, s))
    source = open_source(tmp_path)
    assert len(source) == 6
    assert sorted(again) == sorted(set(source.names) - set(decoded))
    assert not left.exists()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of mapped files here")
def test_reading_keeps_no_file_mapped(tmp_path, cache):
    source = open_source(decathlon(tmp_path))
    volumes = [source.volume(i) for i in range(3)]
    boxes = [(v.read((1, 1, 1), (4, 4, 4)), v.read_mask((1, 1, 1), (4, 4, 4))) for v in volumes]
    assert str(cache) not in Path("/proc/self/maps").read_text()
    open_files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert not [path for path in open_files if str(cache) in path]
    assert len(boxes) == 3


def test_what_is_gone_is_said_in_one_line(tmp_path, cache):
    source = open_source(decathlon(tmp_path))
    path = source.stored[0].voxels
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TacitError, match=r"cannot read the decoded volume .*; remove it to have it decoded"):
        source.batch([0])
    shutil.rmtree(cache / "volumes")
    with pytest.raises(TacitError, match=r"cannot read the decoded volume .*npy: No such file"):
        source.batch([1])


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TacitError, match=r"cannot write the decoded volumes to .*choose another folder"):
        open_source(decathlon(tmp_path / "a"), cache=tmp_path / "file")


def test_bad_volumes_stop_or_are_skipped(tmp_path):
    decathlon(tmp_path)
    (tmp_path / "imagesTr" / "case_1.nii.gz").write_text("no scan")
    save(tmp_path / "imagesTr" / "case_2.nii.gz", scan((9, 8, 7, 3)))
    save(tmp_path / "labelsTr" / "case_7.nii.gz", classes())
    with pytest.raises(BadFile, match=r"labelsTr/case_7\.nii\.gz: a mask without a volume"):
        open_source(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\ncase_0,a\ncase_1,b\ncase_9,b\n")
    source = open_source(tmp_path, on_bad_file="skip")
    assert list(source.names) == ["imagesTr/case_0.nii.gz", "imagesTs/case_9.nii.gz"]
    assert source.skipped == (
        Skipped("labelsTr/case_7.nii.gz", "a mask without a volume: no volume of that name is there"),
        Skipped("imagesTr/case_1.nii.gz", "not a NIfTI file: it starts with b'no scan'"),
        Skipped("imagesTr/case_2.nii.gz",
                "3 channels (volumes along the fourth axis) where 1 are wanted"),
    )  # fmt: skip
    labelled = open_source(tmp_path, on_bad_file="skip", labels=tmp_path / "labels.csv")
    assert labelled.labels.tolist() == [0, 1]
    three = open_source(tmp_path, on_bad_file="skip", channels=3)
    assert list(three.names) == ["imagesTr/case_2.nii.gz"]
    assert three.spec.shape == (3, 16, 16, 16)
    with pytest.raises(TacitError, match="none of the 4 volumes can be used; imagesTr/case_0"):
        open_source(tmp_path, on_bad_file="skip", channels=2)


def test_splits(tmp_path):
    for split, i in (("train", 0), ("Test", 1), ("valid", 2), ("train", 3)):
        save(tmp_path / split / "images" / f"{i}.nii", scan(seed=i))
        if split == "train":
            save(tmp_path / split / "masks" / f"{i}.nii", classes(seed=i))
    (tmp_path / "train" / "images" / "0.nii").write_bytes(b"")
    source = open_source(tmp_path, on_bad_file="skip")
    assert {name: [source.names[i] for i in part] for name, part in source.splits.items()} == {
        "train": ["train/images/3.nii"],
        "test": ["Test/images/1.nii"],
        "val": ["valid/images/2.nii"],
    }
    assert source.labels.tolist() == [-1, 0, -1]


def test_a_real_file_opens(tmp_path):
    real = Path(nib.__file__).parent / "tests" / "data" / "anatomical.nii"
    if not real.exists():
        pytest.skip("nibabel came without its test data")
    shutil.copy(real, tmp_path)
    volume = open_source(tmp_path).volume(0)
    assert volume.shape == (33, 41, 25)
    assert volume.spacing == (2, 2, 2)
    file = nib.as_closest_canonical(nib.load(real))
    np.testing.assert_allclose(whole(volume)[0], spread(file.get_fdata()), atol=1e-6)
    np.testing.assert_array_equal(volume.affine, file.affine)


def test_what_is_for_images_and_what_for_volumes(tmp_path):
    decathlon(tmp_path)
    with pytest.raises(UsageError, match="size is for images; volumes are cut in patches"):
        open_source(tmp_path, size=64)
    with pytest.raises(UsageError, match="window, patch are for volumes, and digits holds images"):
        open_source("digits", window="minmax", patch=4)
    with pytest.raises(UsageError, match="spacing is for volumes, and digits holds images"):
        open_source("digits", spacing=(1, 1, 1))
    with pytest.raises(UsageError, match="masks: these data are open already"):
        open_source(open_source("digits"), masks="x")
    with pytest.raises(UsageError, match="patch is for volumes, and these data are no volumes"):
        open_source(open_source("digits"), patch=4)
    with pytest.raises(UsageError, match=r"case_0\.nii\.gz is one volume: open the folder that it lies in"):
        open_source(tmp_path / "imagesTr" / "case_0.nii.gz")


def test_a_mask_of_0_and_255_is_not_256_classes(tmp_path):
    save(tmp_path / "images" / "a.nii.gz", scan(seed=1))
    mask = (scan(seed=1) > scan(seed=1).mean()).astype(np.uint8) * 255
    save(tmp_path / "labels" / "a.nii.gz", mask)
    with pytest.raises(UsageError, match="the masks hold the values 0, 255: classes are numbered 0, 1, 2"):
        open_source(tmp_path)
