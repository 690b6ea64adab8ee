import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr

import numpy as np
import pytest
import torch
from filelock import FileLock
from pictures import stores
from PIL import Image

from tacit.data.image import build, listing
from tacit.data.image.originals import evenly
from tacit.data.open import open_source
from tacit.errors import BadFile, TacitError


def test_a_build_that_fails_leaves_nothing(folder, cache, monkeypatch):
    (folder / "30.png").write_bytes(b"")
    with pytest.raises(BadFile):
        open_source(folder)
    assert stores(cache) == []

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tacit.data.image.listing.decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_source(folder)
    assert stores(cache) == []


FORKED = multiprocessing.get_context("fork")


class Child:
    """Another process that opens a folder, notes what it decodes, and stands still at one file."""

    def __init__(self, folder, cache, stop=""):
        self.notes = cache / "decoded.txt"
        self.notes.touch()
        self.pipe, theirs = FORKED.Pipe()
        self.process = FORKED.Process(target=self._open, args=(folder, stop, theirs), daemon=True)
        self.process.start()

    def _open(self, folder, stop, pipe):
        build._CHUNK, build._RECORDED = 4, 8
        decode = listing.decode

        def noted(name, data, form):
            if name == stop:
                pipe.send("stopped")
                time.sleep(60)
            with open(self.notes, "a") as file:
                file.write(name + "\n")
            time.sleep(0.002)
            return decode(name, data, form)

        listing.decode = noted
        with redirect_stderr(io.StringIO()) as said:
            said.write = pipe.send
            source = open_source(folder, workers=1)
        pipe.send((source.fingerprint, int(source.pixels.astype(int).sum())))

    def hears(self):
        """What it sends next."""
        assert self.pipe.poll(60)
        return self.pipe.recv()

    def ends(self):
        """Fingerprint and sum of the store, after whatever it says before."""
        while isinstance(heard := self.hears(), str):
            pass
        return heard

    def stands_still(self, cache, done):
        """Wait until it does and so many images are recorded."""
        assert self.hears() == "stopped"
        while recorded(cache) != done:
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL

    def decoded(self):
        return self.notes.read_text().split()


def recorded(cache):
    """What the record of the only unfinished store says."""
    files = list((cache / "images").glob(".*/progress.json"))
    return json.loads(files[0].read_text())["done"] if files else 0


def content(source):
    return source.fingerprint, list(source.names), source.skipped, source.batch(range(len(source))).data


def assert_same(a, b):
    assert content(a)[:3] == content(b)[:3]
    assert torch.equal(content(a)[3], content(b)[3])
    assert torch.equal(a.true_size, b.true_size)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that this process has decoded."""
    names, decode = [], listing.decode
    monkeypatch.setattr(listing, "decode", lambda name, *rest: names.append(name) or decode(name, *rest))
    return names


@pytest.fixture
def interrupted(folder, monkeypatch):
    """Interrupts a build of `folder` in file 21; with the records so dense, 16 files are kept."""
    monkeypatch.setattr(build, "_RECORDED", 8)
    monkeypatch.setattr(build, "_CHUNK", 4)
    decode = listing.decode

    def interrupt(name, *rest):
        if name == "21.png":
            raise KeyboardInterrupt
        return decode(name, *rest)

    def run(**wishes):
        with monkeypatch.context() as patch:
            patch.setattr(listing, "decode", interrupt)
            with pytest.raises(KeyboardInterrupt):
                open_source(folder, **wishes)

    return run


def test_a_killed_build_is_gone_on_with_and_never_taken_for_a_store(folder, cache, tmp_path, decoded):
    child = Child(folder, cache, stop="21.png")
    child.stands_still(cache, 16)
    child.kill()
    (left,) = stores(cache)
    assert left.startswith(".")
    assert not (cache / "images" / left / "store.json").exists()
    source = open_source(folder)
    assert sorted(decoded) == [f"{i:02}.png" for i in range(16, 40)]
    assert stores(cache) == [source.folder.name]
    assert sorted(p.name for p in source.folder.iterdir()) == [
        "names.safetensors", "pixels.npy", "store.json", "true_size.npy"]  # fmt: skip
    assert_same(source, open_source(folder, cache=tmp_path / "fresh"))


def test_unusable_files_before_the_interruption_are_remembered(folder, tmp_path, interrupted, decoded):
    for name in ("03.png", "15.png", "18.png"):
        (folder / name).write_bytes(b"")
    interrupted(on_bad_file="skip")
    source = open_source(folder, on_bad_file="skip")
    assert [file.name for file in source.skipped] == ["03.png", "15.png", "18.png"]
    assert min(decoded) == "16.png"
    assert_same(source, open_source(folder, on_bad_file="skip", cache=tmp_path / "fresh"))
    assert source.kept(np.arange(40)).tolist() == [i for i in range(40) if i not in (3, 15, 18)]
    interrupted(on_bad_file="skip", size=9)
    decoded.clear()
    with pytest.raises(BadFile, match=r"03\.png"):
        open_source(folder, size=9)
    assert decoded == []


@pytest.mark.parametrize("part", ["pixels.npy", "true_size.npy", "digests.npy", "left_out.jsonl"])
def test_what_was_written_behind_the_record_is_cut_off(folder, cache, tmp_path, interrupted, part):
    interrupted()
    (left,) = (cache / "images").iterdir()
    with open(left / part, "ab") as file:
        file.write(b"half an image")
    assert_same(open_source(folder), open_source(folder, cache=tmp_path / "fresh"))


@pytest.mark.parametrize(
    "part", ["pixels.npy", "true_size.npy", "digests.npy", "left_out.jsonl", "progress.json"]
)
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_beginning_is_begun_anew(folder, cache, tmp_path, interrupted, decoded, part, how):
    (folder / "03.png").write_bytes(b"")
    interrupted(on_bad_file="skip")
    (left,) = (cache / "images").iterdir()
    if how == "gone":
        (left / part).unlink()
    else:
        (left / part).write_bytes((left / part).read_bytes()[: (left / part).stat().st_size // 2])
    source = open_source(folder, on_bad_file="skip")
    assert min(decoded) == "00.png"
    assert_same(source, open_source(folder, on_bad_file="skip", cache=tmp_path / "fresh"))


def test_what_was_begun_of_other_files_is_not_gone_on_with(folder, interrupted, decoded):
    interrupted()
    os.utime(folder / "02.png", ns=(1, 1))
    open_source(folder)
    assert min(decoded) == "00.png"


def test_two_processes_decode_once(folder, cache, tmp_path):
    children = [Child(folder, cache), Child(folder, cache)]
    ends = [child.ends() for child in children]
    assert ends[0] == ends[1]
    assert ends[0][0] == open_source(folder, cache=tmp_path / "fresh").fingerprint
    assert sorted(children[0].decoded()) == [f"{i:02}.png" for i in range(40)]
    assert len(stores(cache)) == 1


def test_who_waits_takes_over_from_a_killed_owner(folder, cache, tmp_path):
    owner = Child(folder, cache, stop="21.png")
    owner.stands_still(cache, 16)
    waiting = Child(folder, cache)
    assert "another run is decoding these images" in waiting.hears()
    owner.kill()
    assert waiting.ends()[0] == open_source(folder, cache=tmp_path / "fresh").fingerprint
    assert sorted(waiting.decoded()) == sorted(
        [f"{i:02}.png" for i in range(40)] + [f"{i:02}.png" for i in range(16, 21)])  # fmt: skip
    assert len(stores(cache)) == 1


def test_two_threads_at_once_both_end_well(folder, cache, decoded):
    with ThreadPoolExecutor(2) as pool:
        sources = list(pool.map(lambda _: open_source(folder), range(2)))
    assert_same(*sources)
    assert len(decoded) == 40
    assert len(stores(cache)) == 1


def test_remains_of_other_stores_are_swept_when_they_are_old(folder, cache, interrupted):
    interrupted()
    (left,) = stores(cache)
    open_source(folder, size=9)
    assert left in stores(cache)  # young: somebody may still go on with it
    old = time.time() - 2 * 24 * 3600
    for part in (cache / "images" / left, *(cache / "images" / left).iterdir()):
        os.utime(part, (old, old))
    with FileLock(cache / "locks" / f"{left[1:]}.lock"):
        open_source(folder, size=10)
    assert left in stores(cache)  # somebody does
    open_source(folder, size=11)
    assert left not in stores(cache)


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


def test_a_disk_that_fills_up_half_way_keeps_what_is_whole(folder, cache, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(build, "_RECORDED", 8)
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 13:  # five files a record, and the folder's listing
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TacitError, match="the disk is full; choose another folder with --cache"):
            open_source(folder)
    assert recorded(cache) == 16
    decoded.clear()
    source = open_source(folder)
    assert min(decoded) == "16.png"
    assert_same(source, open_source(folder, cache=tmp_path / "fresh"))


@pytest.fixture
def read_only(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def now():
        monkeypatch.setattr(os, "mkdir", refuse)
        monkeypatch.setattr("tempfile.mkstemp", refuse)

    return now


def test_a_read_only_cache_is_one_line(folder, cache, read_only):
    read_only()
    with pytest.raises(TacitError) as caught:
        open_source(folder)
    assert str(caught.value) == (
        f"cannot write the decoded images to {cache}/images: Read-only file system; "
        "choose another folder with --cache or TACIT_CACHE"
    )


def test_a_store_in_a_read_only_cache_is_read(folder, read_only):
    first = open_source(folder)
    read_only()
    assert_same(open_source(folder), first)


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TacitError, match=r"cannot write the decoded images to .*file/images: "):
        open_source(folder, cache=tmp_path / "file")


def test_more_files_than_chunks_in_flight_stay_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_CHUNK", 2)
    for i in range(60):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    source = open_source(tmp_path, workers=3)
    assert source.batch(range(60)).data[:, 0, 4, 4].tolist() == list(range(60))


def test_decoding_does_not_run_far_ahead_of_writing():
    class Many:
        names = range(1000)

        def decode(self, i, form):
            seen.append(i)
            return i

    seen = []
    pool = ThreadPoolExecutor(2)
    results = build._decoded(Many(), None, pool, ahead=3)
    assert next(results) == 0
    pool.shutdown(wait=True)
    assert sorted(seen) == list(range(4 * 16))


def test_evenly_takes_both_ends():
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly(range(3)) == [0, 1, 2]
    assert evenly([]) == []
    chosen = evenly(range(100_000))
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
