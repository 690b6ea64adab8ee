"""What could not be read is tried again; damage of content is kept in mind."""

import errno
import os

import numpy as np
import pytest
from pictures import smooth, write
from PIL import Image
from scans import save, scan

from tacit.data import limits
from tacit.data.image import build, index, listing
from tacit.data.open import open_source
from tacit.errors import BadFile, Unreadable


@pytest.fixture
def closed(monkeypatch):
    """Files, by the ends of their paths, that the system refuses to open, with this error."""
    names, opened = {}, os.open

    def refuse(path, *words, **more):
        for end, number in names.items():
            if os.fsdecode(path).endswith(end):
                raise OSError(number, os.strerror(number), os.fsdecode(path))
        return opened(path, *words, **more)

    monkeypatch.setattr(os, "open", refuse)
    return names


def opened(folder, **words):
    return open_source(folder, on_bad_file="skip", progress=False, **words)


REASONS = {
    errno.EACCES: "permission denied",
    errno.EIO: "cannot be read: Input/output error",
    errno.ESTALE: "cannot be read: Stale file handle",
    errno.ENOENT: "a link to a file that does not exist, or just deleted",
}


@pytest.mark.parametrize("number", REASONS)
def test_a_picture_that_can_be_read_again_is_in_the_next_time(tmp_path, closed, number):
    write(tmp_path, "a.png", "b.png", "c.png")
    closed["b.png"] = number
    for _ in range(2):
        source = opened(tmp_path)
        assert list(source.names) == ["a.png", "c.png"]
        assert source.skipped == (("b.png", REASONS[number]),)
    closed.clear()
    again = opened(tmp_path)
    assert (list(again.names), again.skipped) == (["a.png", "b.png", "c.png"], ())
    assert list(source.names) == ["a.png", "c.png"]
    np.testing.assert_array_equal(source.batch([0, 1]).data, again.batch([0, 2]).data)  # both can be read


def test_it_stops_where_it_is_to_stop_and_goes_on_once_it_can(tmp_path, closed):
    write(tmp_path, "a.png", "b.png")
    closed["b.png"] = errno.EACCES
    opened(tmp_path)
    with pytest.raises(BadFile, match=r"b\.png: permission denied"):
        open_source(tmp_path)
    closed.clear()
    assert len(open_source(tmp_path)) == 2


def test_nothing_is_decoded_again_while_it_still_cannot_be_read(tmp_path, closed, monkeypatch):
    write(tmp_path, "a.png", "b.png", "c.png")
    closed["b.png"] = errno.EACCES
    first = opened(tmp_path)
    names, decode = [], listing.decode
    monkeypatch.setattr(listing, "decode", lambda name, *rest: names.append(name) or decode(name, *rest))
    assert opened(tmp_path).fingerprint == first.fingerprint
    assert names == []


def test_damaged_content_is_not_looked_at_again(tmp_path, no_decoding):
    write(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    first = opened(tmp_path)
    assert first.skipped[0].reason.startswith("damaged: ")
    no_decoding()
    assert opened(tmp_path).skipped == first.skipped


def test_a_file_that_was_closed_and_is_damaged_gets_its_true_reason(tmp_path, closed):
    write(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    closed["b.png"] = errno.EACCES
    assert opened(tmp_path).skipped[0].reason == "permission denied"
    closed.clear()
    assert opened(tmp_path).skipped[0].reason.startswith("damaged: ")


@pytest.mark.parametrize("again", [True, False])
def test_a_build_that_was_stopped_goes_back_to_what_can_be_read_now(tmp_path, closed, monkeypatch, again):
    monkeypatch.setattr(build, "_RECORDED", 2)
    write(tmp_path, *(f"{k}.png" for k in range(8)))
    (tmp_path / "1.png").write_bytes(b"no image")
    closed["3.png"] = errno.EIO
    decode = listing.decode

    def interrupted(name, *rest):
        if name == "7.png":
            raise KeyboardInterrupt
        return decode(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build, "_CHUNK", 1)
        patch.setattr(listing, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, workers=1)
    if again:
        closed.clear()
    done = []
    monkeypatch.setattr(listing, "decode", lambda name, *rest: done.append(name) or decode(name, *rest))
    source = opened(tmp_path, workers=1)
    names = [f"{k}.png" for k in range(8) if k != 1 and (again or k != 3)]
    assert list(source.names) == names
    assert [bad.name for bad in source.skipped] == (["1.png"] if again else ["1.png", "3.png"])
    assert ("4.png" in done) == again  # decoded before, and once more only behind what has come back
    closed.clear()
    fresh = opened(tmp_path, cache=tmp_path.with_name("fresh"))
    kept = [list(fresh.names).index(name) for name in names]
    np.testing.assert_array_equal(source.batch(range(len(names))).data, fresh.batch(kept).data)
    np.testing.assert_array_equal(source.true_size, fresh.true_size[kept])


def test_too_little_memory_does_not_stick(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_SMALL", 2**20)
    write(tmp_path, "a.png", "c.png")
    Image.fromarray(smooth(400, 400)).save(tmp_path / "b.png")  # 400 x 400 x 16 bytes are 2.4 MiB
    with monkeypatch.context() as patch:
        patch.setattr(limits, "free_memory", lambda: 2**20)
        assert opened(tmp_path).skipped == (
            ("b.png", "too large for the memory: decoding it takes 2.4 MiB, and 1.0 MiB are free"),
        )
    assert opened(tmp_path).skipped == ()


def test_a_volume_that_can_be_read_again(tmp_path, closed):
    save(tmp_path / "a.nii", scan())
    save(tmp_path / "b.nii", scan(seed=1))
    closed["b.nii"] = errno.EACCES
    assert opened(tmp_path).skipped == (("b.nii", "permission denied"),)
    closed.clear()
    assert len(opened(tmp_path)) == 2


def masked(folder):
    write(folder, *(f"images/{name}.png" for name in "abcd"))
    (folder / "masks").mkdir()
    for k, name in enumerate("abcd"):
        mask = np.eye(8, k=k, dtype=np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def test_a_mask_that_can_be_read_again(tmp_path, closed):
    closed["masks/b.png"] = errno.EACCES
    for _ in range(2):
        source = opened(masked(tmp_path) if not (tmp_path / "masks").exists() else tmp_path)
        assert source.skipped == (("images/b.png", "its mask masks/b.png: permission denied"),)
        assert len(source) == 3
    closed.clear()
    again = opened(tmp_path)
    assert (len(again), again.skipped) == (4, ())
    np.testing.assert_array_equal(again[1].target, np.eye(8, k=1))
    np.testing.assert_array_equal(source[1].target, np.eye(8, k=2))


def test_a_folder_that_can_be_read_again_without_having_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_COARSE", 0)
    write(tmp_path, "a.png", "more/b.png")
    scandir = os.scandir

    def refuse(path):
        if os.fsdecode(path).endswith("more"):
            raise OSError(errno.EIO, "Input/output error")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert opened(tmp_path).skipped == (("more/", "folder cannot be read: Input/output error"),)
    assert list(opened(tmp_path).names) == ["a.png", "more/b.png"]


def test_a_row_of_a_dataset_whose_file_can_be_read_again(tmp_path, closed, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from tacit.data.image import hub

    write(tmp_path, "a.png", "b.png")
    names = [str(tmp_path / name) for name in ("a.png", "b.png")]
    rows = datasets.Dataset.from_dict({"image": names}).cast_column("image", datasets.Image())
    monkeypatch.setattr(hub, "_load", lambda where, progress: {"": rows})
    closed["b.png"] = errno.EACCES
    assert opened("hf:x").skipped == (("000001", "permission denied"),)
    closed.clear()
    assert opened("hf:x").skipped == ()


def test_the_two_kinds_are_told_apart_by_type():
    assert issubclass(Unreadable, BadFile)
    assert str(Unreadable("a", "b")) == str(BadFile("a", "b"))
