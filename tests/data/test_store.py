import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from pictures import bad_files, smooth
from PIL import Image

from tacit.data import store
from tacit.data.open import open_source
from tacit.errors import BadFile, TacitError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for i in range(40):
        Image.fromarray(smooth(10 + i, 20, i)).save(place / f"{i:02}.png")
    return place


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    def forbid():
        monkeypatch.setattr("tacit.data.images.decode", refuse)
        monkeypatch.setattr("tacit.data.images.read_header", refuse)

    return forbid


def stores(cache):
    return sorted(path.name for path in (cache / "images").iterdir())


def test_a_batch_is_the_samples(folder):
    source = open_source(folder, size=16)
    batch = source.batch(torch.tensor([5, 0, 5, 39]))
    assert batch.unlabelled.dtype == torch.uint8
    assert batch.unlabelled.shape == (4, 3, 16, 16)
    assert batch.index.tolist() == [5, 0, 5, 39]
    assert batch.extra["true_size"].tolist() == [[15, 20], [10, 20], [15, 20], [49, 20]]
    assert batch.extra["true_size"].dtype == torch.float32
    for row, i in enumerate((5, 0, 5, 39)):
        sample = source[i]
        assert torch.equal(sample.data, batch.unlabelled[row])
        assert torch.equal(sample.extra["true_size"], batch.extra["true_size"][row])
        exact = Image.fromarray(smooth(10 + i, 20, i)).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(sample.data, np.moveaxis(np.asarray(exact), 2, 0))
    batch.unlabelled.zero_()  # a copy: the store is not touched
    assert source[5].data.any()
    assert torch.equal(source.subset(np.array([7, 3])).batch([1]).unlabelled[0], source[3].data)
    with pytest.raises(IndexError):
        source[40]


def test_the_second_time_nothing_is_decoded(folder, cache, no_decoding):
    first = open_source(folder)
    no_decoding()
    second = open_source(folder)
    assert torch.equal(first.batch(range(40)).unlabelled, second.batch(range(40)).unlabelled)
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
    assert torch.equal(torch.cat(list(loader)), source.batch(range(40)).unlabelled)


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


def test_a_build_that_fails_leaves_nothing(folder, cache, monkeypatch):
    (folder / "30.png").write_bytes(b"")
    with pytest.raises(BadFile):
        open_source(folder)
    assert stores(cache) == []

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tacit.data.images.decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_source(folder)
    assert stores(cache) == []


KILLED = """
    import sys, time
    from tacit.data import images
    from tacit.data.open import open_source
    decode = images.decode
    def slow(name, data, form):
        if name > "20.png":
            print("half", flush=True)
            time.sleep(60)
        return decode(name, data, form)
    images.decode = slow
    open_source(sys.argv[1], workers=1)
"""


def test_a_killed_build_is_not_taken_for_a_store(folder, cache):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TACIT_CACHE": str(cache)})
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    (left,) = stores(cache)
    assert left.startswith(".")
    assert len(open_source(folder)) == 40
    assert len(stores(cache)) == 2  # the remains may still be somebody's work
    old = time.time() - 2 * 24 * 3600
    for part in (cache / "images" / left, *(cache / "images" / left).iterdir()):
        os.utime(part, (old, old))
    open_source(folder, size=9)
    assert left not in stores(cache)


def test_two_builders_at_once_both_end_well(folder, cache, monkeypatch):
    published = store._publish
    barrier = Barrier(2)

    def together(*args):
        barrier.wait(20)
        published(*args)

    monkeypatch.setattr(store, "_publish", together)
    with ThreadPoolExecutor(2) as pool:
        sources = list(pool.map(lambda _: open_source(folder), range(2)))
    assert torch.equal(sources[0].batch(range(40)).unlabelled, sources[1].batch(range(40)).unlabelled)
    assert len(stores(cache)) == 1
    assert not list((cache / "images").glob(".*"))


@pytest.mark.parametrize("part", ["pixels.npy", "store.json", "names.json", "true_size.npy"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_store_damaged_from_outside_is_built_anew(folder, cache, part, how):
    first = open_source(folder)
    expected = first.batch(range(40)).unlabelled
    path = first.folder / part
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = open_source(folder)
    assert torch.equal(again.batch(range(40)).unlabelled, expected)
    assert sorted(p.name for p in again.folder.iterdir()) == [
        "names.json", "pixels.npy", "store.json", "true_size.npy"]  # fmt: skip
    assert len(stores(cache)) == 1


def test_a_store_of_another_version_is_not_used(folder):
    first = open_source(folder)
    meta = json.loads((first.folder / "store.json").read_text())
    (first.folder / "store.json").write_text(json.dumps(meta | {"format": 0, "fingerprint": "x"}))
    assert open_source(folder).fingerprint == first.fingerprint


def test_too_little_room_is_said_before_decoding(folder, cache, monkeypatch):
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(TacitError, match=rf"{cache}/images has 0\.0 GB left: .* --cache or TACIT_CACHE"):
        open_source(folder)
    assert stores(cache) == []


def test_a_disk_that_fills_up_is_one_line(folder, cache, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TacitError) as caught:
        open_source(folder)
    assert "the disk is full; choose another folder with --cache or TACIT_CACHE" in str(caught.value)
    assert str(cache) in str(caught.value)
    assert stores(cache) == []


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TacitError, match=r"cannot write the decoded images to .*file/images: "):
        open_source(folder, cache=tmp_path / "file")


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


def test_more_files_than_chunks_in_flight_stay_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK", 2)
    for i in range(60):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    source = open_source(tmp_path, workers=3)
    assert source.batch(range(60)).unlabelled[:, 0, 4, 4].tolist() == list(range(60))


def test_decoding_does_not_run_far_ahead_of_writing():
    class Many:
        names = range(1000)

        def decode(self, i, form):
            seen.append(i)
            return i

    seen = []
    pool = ThreadPoolExecutor(2)
    results = store._decoded(Many(), None, pool, ahead=3)
    assert next(results) == 0
    pool.shutdown(wait=True)
    assert sorted(seen) == list(range(4 * 16))


def test_evenly_takes_both_ends():
    assert store.evenly(range(10), 4) == [0, 3, 6, 9]
    assert store.evenly(range(3)) == [0, 1, 2]
    assert store.evenly([]) == []
    chosen = store.evenly(range(100_000))
    assert (len(chosen), chosen[0], chosen[-1]) == (256, 0, 99_999)
    assert len(set(chosen)) == 256


def test_a_bar_on_a_terminal_only(capsys, monkeypatch):
    from tacit.data.progress import counted

    assert list(counted(range(3), 3, shown=True)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    assert list(counted(range(3), 3, shown=True)) == [0, 1, 2]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err
    assert list(counted(range(3), 3, shown=False)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
