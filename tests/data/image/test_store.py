import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import bad_files, smooth, stores
from PIL import Image

from tacit.data.open import open_source
from tacit.errors import BadFile, TacitError


def test_a_batch_is_the_samples(folder):
    source = open_source(folder, size=16)
    batch = source.batch(torch.tensor([5, 0, 5, 39]))
    assert batch.data.dtype == torch.uint8
    assert batch.data.shape == (4, 3, 16, 16)
    assert batch.index.tolist() == [5, 0, 5, 39]
    assert batch.extra["true_size"].tolist() == [[15, 20], [10, 20], [15, 20], [49, 20]]
    assert batch.extra["true_size"].dtype == torch.float32
    for row, i in enumerate((5, 0, 5, 39)):
        sample = source[i]
        assert torch.equal(sample.data, batch.data[row])
        assert torch.equal(sample.extra["true_size"], batch.extra["true_size"][row])
        exact = Image.fromarray(smooth(10 + i, 20, i)).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(sample.data, np.moveaxis(np.asarray(exact), 2, 0))
    batch.data.zero_()  # a copy: the store is not touched
    assert source[5].data.any()
    assert torch.equal(source.subset(np.array([7, 3])).batch([1]).data[0], source[3].data)
    with pytest.raises(IndexError):
        source[40]


def test_the_second_time_nothing_is_decoded(folder, cache, no_decoding):
    first = open_source(folder)
    no_decoding()
    second = open_source(folder)
    assert torch.equal(first.batch(range(40)).data, second.batch(range(40)).data)
    assert (second.names, second.fingerprint, second.spec) == (first.names, first.fingerprint, first.spec)
    assert len(stores(cache)) == 1


@pytest.mark.parametrize("change", ["time", "bytes", "name", "fewer", "size", "channels"])
def test_another_store_when_files_or_wishes_change(folder, cache, change):
    first = open_source(folder)
    wishes = {}
    path = folder / "03.png"
    if change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "bytes":
        state = path.stat()
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "name":
        path.rename(folder / "03b.png")
    elif change == "fewer":
        path.unlink()
    else:
        wishes[change] = 4 if change == "channels" else 9
    second = open_source(folder, **wishes)
    assert len(stores(cache)) == 2
    assert (second.fingerprint == first.fingerprint) == (change in ("time", "size", "channels"))


def test_the_fingerprint_is_of_the_content_not_of_the_place(folder, tmp_path, cache):
    shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert open_source(folder).fingerprint == open_source(tmp_path / "elsewhere").fingerprint
    assert len(stores(cache)) == 2
    a, b = tmp_path / "elsewhere" / "00.png", tmp_path / "elsewhere" / "01.png"
    a.rename(tmp_path / "aside")
    b.rename(a)
    (tmp_path / "aside").rename(b)  # the same files under exchanged names
    assert open_source(folder).fingerprint != open_source(tmp_path / "elsewhere").fingerprint


def test_labels_do_not_rebuild(folder, tmp_path, no_decoding):
    open_source(folder)
    (tmp_path / "labels.csv").write_text("file,label\n03.png,b\n01.png,a\n")
    no_decoding()
    source = open_source(folder, labels=tmp_path / "labels.csv")
    assert source.labelled.tolist() == [1, 3]
    assert source.labels[[1, 3]].tolist() == [0, 1]
    assert source.spec.classes == ("a", "b")


def test_a_copy_for_a_worker_maps_the_same_file(folder):
    source = open_source(folder, size=64)
    copy = pickle.dumps(source)
    assert len(copy) < 0.1 * source.pixels.nbytes
    assert torch.equal(pickle.loads(copy)[7].data, source[7].data)
    assert isinstance(pickle.loads(copy).pixels.base, np.memmap)
    loader = torch.utils.data.DataLoader(source, batch_size=8, num_workers=2, collate_fn=_data)
    assert torch.equal(torch.cat(list(loader)), source.batch(range(40)).data)


def _data(samples):
    return torch.stack([sample.data for sample in samples])


def test_the_place_of_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_source(folder).folder.parent == tmp_path / "xdg" / "tacit" / "images"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_source(folder).folder.parent == tmp_path / "home" / ".cache" / "tacit" / "images"
    assert open_source(folder, cache=tmp_path / "own").folder.parent == tmp_path / "own" / "images"


@pytest.mark.parametrize("part", ["pixels.npy", "store.json", "names.safetensors", "true_size.npy"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_store_damaged_from_outside_is_built_anew(folder, cache, part, how):
    first = open_source(folder)
    expected = first.batch(range(40)).data
    path = first.folder / part
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = open_source(folder)
    assert torch.equal(again.batch(range(40)).data, expected)
    assert sorted(p.name for p in again.folder.iterdir()) == [
        "names.safetensors", "pixels.npy", "store.json", "true_size.npy"]  # fmt: skip
    assert len(stores(cache)) == 1


def test_a_store_of_another_version_is_not_used(folder):
    first = open_source(folder)
    meta = json.loads((first.folder / "store.json").read_text())
    (first.folder / "store.json").write_text(json.dumps(meta | {"format": 0, "fingerprint": "x"}))
    assert open_source(folder).fingerprint == first.fingerprint


def test_skipped_files_are_remembered_by_the_store(folder, no_decoding):
    reasons = bad_files(folder)
    source = open_source(folder, on_bad_file="skip")
    assert len(source) == 40
    assert source.true_size[:, 0].tolist() == list(range(10, 50))
    no_decoding()
    assert open_source(folder, on_bad_file="skip").skipped == source.skipped
    with pytest.raises(BadFile) as caught:
        open_source(folder)
    assert caught.value.name == min(reasons)


@pytest.mark.parametrize(
    "index", [[3], [], [0, 1, 2, 3], [39, 0, 1, 2, 7, 8, 8, 7], [-1, 0, -40, -39], list(range(40))]
)
def test_rows_are_read_as_from_the_array(folder, index):
    source = open_source(folder, size=9)
    expected = source.pixels[np.array(list(index), int)]
    np.testing.assert_array_equal(source.batch(index).data, expected)


@pytest.mark.parametrize("index", [[40], [0, -41]])
def test_no_rows_beyond_the_array(folder, index):
    with pytest.raises(IndexError):
        open_source(folder).batch(index)


def test_pixels_that_are_lost_while_reading_are_one_line(folder):
    source = open_source(folder)
    os.truncate(source.folder / "pixels.npy", 1000)
    with pytest.raises(TacitError, match=r"has become shorter; remove .* to have them decoded again"):
        source.batch([39])


def test_a_batch_does_not_map_the_pixels(tmp_path):
    """Reading all of a large store leaves the process as small as it was."""
    images = np.random.default_rng(0).integers(0, 255, (2000, 128, 128), np.uint8)
    np.savez(tmp_path / "large.npz", images=images)
    source = open_source(tmp_path / "large.npz")
    before = mapped_kib()
    for start in range(0, 2000, 100):
        source.batch(range(start, start + 100))
    assert mapped_kib() - before < 4000  # of 32,768 in the store


def mapped_kib():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        pytest.skip("no /proc here")
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))
