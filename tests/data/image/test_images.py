import os
import shutil

import numpy as np
import pytest
import torch
from pictures import bad_files, good_files, smooth, write
from PIL import Image

from tacit.data.open import open_source
from tacit.data.source import Spec
from tacit.errors import BadFile, TacitError, UsageError


def test_a_folder_becomes_a_source(tmp_path):
    write(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png")
    source = open_source(tmp_path)
    assert source.spec == Spec("image", (3, 8, 8), ("cat", "dog"))
    assert source.labels.tolist() == [0, 1, 1]
    assert source.labels.dtype == np.int64
    sample = source[-1]
    assert (sample.index, sample.label, sample.name) == (2, 1, "dog/2.png")
    np.testing.assert_array_equal(sample.data, np.moveaxis(smooth(8, 8, 2), 2, 0))
    unlabelled = open_source(tmp_path, labels="none")
    assert unlabelled.labels.tolist() == [-1, -1, -1]
    assert unlabelled.spec.classes == ()


def test_all_kinds_together(tmp_path):
    names = good_files(tmp_path / "good")
    source = open_source(tmp_path / "good")
    assert list(source.names) == names
    assert source.spec.shape == (3, 35, 35)  # sqrt(30 x 40) = 34.6
    assert source.white == 2047  # the only deep image goes up to 1199
    deep = source[names.index("deep.png")].data
    assert abs(int(deep.max()) - 1199 * 255 / 2047) < 2
    assert torch.equal(deep[0], deep[2])


def test_channels_are_one_only_if_all_are_grey(tmp_path):
    for i in range(3):
        Image.fromarray(smooth(8, 8)[..., 0]).save(tmp_path / f"{i}.png")
    assert open_source(tmp_path).spec.shape == (1, 8, 8)
    assert open_source(tmp_path, channels=3).spec.shape == (3, 8, 8)
    write(tmp_path, "9.png")
    source = open_source(tmp_path)
    assert source.spec.shape == (3, 8, 8)
    assert torch.equal(source[0].data[0], source[0].data[1])


def test_arrays_of_any_number_of_channels(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", smooth(12, 12, i, channels=5))
    source = open_source(tmp_path)
    assert source.spec.shape == (5, 12, 12)
    np.testing.assert_array_equal(source[2].data, np.moveaxis(smooth(12, 12, 2, channels=5), 2, 0))
    np.save(tmp_path / "3.npy", smooth(12, 12, channels=4))
    with pytest.raises(BadFile, match=r"3\.npy: 4 channels where 5 are wanted"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="channels must be 1, 3 or 4"):
        open_source(write(tmp_path / "png", "a.png"), channels=2)


@pytest.mark.parametrize(("sides", "size"), [([32, 32, 32], 32), ([300, 400, 500], 256), ([10, 20, 90], 20)])
def test_the_automatic_side_is_the_median_capped(tmp_path, sides, size):
    for i, side in enumerate(sides):
        write(tmp_path, f"{i}.png", side=side)
    assert open_source(tmp_path).spec.shape == (3, size, size)
    assert open_source(tmp_path, size=6).spec.shape == (3, 6, 6)
    assert open_source(tmp_path, max_size=24).spec.shape == (3, min(size, 24), min(size, 24))
    assert open_source(tmp_path, size=400, max_size=24).spec.shape == (3, 400, 400)


def test_one_white_for_the_whole_folder(tmp_path):
    for i, highest in enumerate((700, 3000, 1500)):
        values = np.full((8, 8), highest, np.uint16)
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    source = open_source(tmp_path)
    assert source.white == 4095
    # 700, 3000, 1500 x 255 / 4095 = 43.6, 186.8, 93.4
    assert [int(source[i].data[0, 0, 0]) for i in range(3)] == [44, 187, 93]


def test_bad_files_are_skipped_with_their_reasons_or_stop_at_the_first(tmp_path, capfd, recwarn):
    reasons = bad_files(tmp_path)
    write(tmp_path, "good.png", "zoo.png")
    with pytest.raises(BadFile) as caught:
        open_source(tmp_path)
    assert caught.value.name == min(reasons)  # nothing is built, so nothing is kept either
    source = open_source(tmp_path, on_bad_file="skip")
    assert list(source.names) == ["good.png", "zoo.png"]
    assert [file.name for file in source.skipped] == sorted(reasons)
    for file in source.skipped:
        assert reasons[file.name] in file.reason
    again = open_source(tmp_path, on_bad_file="skip")
    assert again.skipped == source.skipped
    with pytest.raises(BadFile, match=min(reasons)):
        open_source(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_the_first_bad_file_is_first_by_name_however_long_the_others_take(tmp_path):
    write(tmp_path, *(f"{i:03}.png" for i in range(100)))
    for name in ("099.png", "041.png", "040.png"):
        (tmp_path / name).write_bytes(b"")
    for _ in range(3):
        with pytest.raises(BadFile) as caught:
            open_source(tmp_path, workers=4)
        assert caught.value.name == "040.png"


def test_only_bad_files(tmp_path):
    count = len(bad_files(tmp_path))
    with pytest.raises(TacitError, match=rf"none of the {count} images can be used; bomb\.png: too many"):
        open_source(tmp_path, on_bad_file="skip")


def test_a_file_without_permission(tmp_path, monkeypatch):
    write(tmp_path, "a.png", "b.png", "c.png")
    if os.geteuid() == 0:  # root may read everything
        read = type(tmp_path).read_bytes

        def refuse(path):
            if path.name == "b.png":
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    else:
        (tmp_path / "b.png").chmod(0)
    with pytest.raises(BadFile, match=r"b\.png: permission denied"):
        open_source(tmp_path)
    assert open_source(tmp_path, on_bad_file="skip").skipped == (("b.png", "permission denied"),)


def test_a_folder_without_permission(tmp_path, monkeypatch):
    write(tmp_path, "a.png", "closed/b.png")
    scan = os.scandir

    def refuse(path):
        if os.fsdecode(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadFile, match="closed/: folder cannot be read: Permission denied"):
        open_source(tmp_path)
    source = open_source(tmp_path, on_bad_file="skip")
    assert source.names == ["a.png"]
    assert source.skipped[0].name == "closed/"


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    with pytest.raises(UsageError, match=r"read are \.jpg .*: it is empty"):
        open_source(tmp_path)
    for i in range(12):
        (tmp_path / f"{i}.dcm").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"it holds 12 files, all \.dcm"):
        open_source(tmp_path)
    (tmp_path / "LICENSE").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"it holds 13 files \(12 \.dcm, 1 without an extension\)"):
        open_source(tmp_path)


def test_real_jpegs_as_files(tmp_path, real_data):
    archive = np.load(real_data / "cifar10_jpeg" / "test.npz")
    data, offset, label = archive["jpeg"], archive["offset"], archive["label"]
    for i in range(200):
        (tmp_path / str(label[i])).mkdir(exist_ok=True)
        (tmp_path / str(label[i]) / f"{i:04}.jpg").write_bytes(data[offset[i] : offset[i + 1]].tobytes())
    source = open_source(tmp_path)
    assert source.spec.shape == (3, 32, 32)
    assert source.spec.classes == tuple("0123456789")
    assert np.bincount(source.labels).tolist() == [20] * 10
    place = list(source.names).index("7/0137.jpg")
    with Image.open(tmp_path / "7/0137.jpg") as image:
        np.testing.assert_array_equal(source[place].data, np.moveaxis(np.asarray(image), 2, 0))
    shutil.rmtree(tmp_path / "3")
    assert open_source(tmp_path).spec.classes == tuple("012456789")
