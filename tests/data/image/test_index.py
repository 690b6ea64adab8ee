import os
import shutil
import time

import numpy as np
import pytest
from pictures import write

from tacit.data.image import index
from tacit.data.image.index import indexed
from tacit.data.image.listing import list_images
from tacit.data.open import open_source
from tacit.data.options import Options

NAMES = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder that was changed long enough ago."""
    monkeypatch.setattr(index, "_COARSE", 20_000_000)
    folder = write(tmp_path / "images", *NAMES)
    (folder / "notes.txt").write_text("x")
    settle()
    return folder


@pytest.fixture
def listings(monkeypatch):
    """One entry each time that a folder is listed."""
    made = []
    monkeypatch.setattr(index, "list_images", lambda folder: made.append(folder) or list_images(folder))
    return made


def settle():
    time.sleep(0.05)


def assert_listed(folder):
    """What `indexed` gives is what the disk holds."""
    found, true = indexed(folder, Options()), list_images(folder)
    assert found.names == true.names
    assert found.folders == true.folders
    assert (found.others, found.closed, found.digest) == (true.others, true.closed, true.digest)
    for part in ("sizes", "times", "folder_of", "changed"):
        np.testing.assert_array_equal(getattr(found, part), getattr(true, part))
        assert getattr(found, part).dtype == getattr(true, part).dtype


def test_a_folder_that_did_not_change_is_listed_once(tree, listings):
    first = open_source(tree)
    second = open_source(tree)
    assert len(listings) == 1
    assert second.names == first.names == sorted(NAMES)
    assert second.spec == first.spec
    assert second.labels.tolist() == first.labels.tolist() == [0, 1, 0, 0, 1]
    assert {k: v.tolist() for k, v in second.splits.items()} == {"train": [2, 3, 4], "test": [0, 1]}
    assert_listed(tree)
    assert len(listings) == 1


CHANGES = {
    "added": lambda f: shutil.copy(f / NAMES[0], f / "train/cat/3.png"),
    "removed": lambda f: (f / NAMES[4]).unlink(),
    "renamed": lambda f: (f / NAMES[0]).rename(f / "train/cat/9.png"),
    "replaced": lambda f: os.replace(shutil.copy(f / NAMES[1], f / "new"), f / NAMES[0]),
    "overwritten": lambda f: (f / NAMES[0]).write_bytes(b"x" * (f / NAMES[0]).stat().st_size),
    "another size, the same time": lambda f: _append(f / NAMES[0]),
    "another time": lambda f: os.utime(f / NAMES[0], ns=(7, 7)),
    "a new folder": lambda f: write(f / "train/bird", "1.png"),
    "an empty folder": lambda f: (f / "train/none").mkdir(),
    "another kind of file": lambda f: (f / "more.txt").write_text("x"),
    "folders exchanged": lambda f: _exchange(f / "train/cat", f / "train/dog"),
    "a file added, the folder's time put back": lambda f: _forge(f / "train/cat"),
    "hidden": lambda f: (f / NAMES[0]).rename(f / "train/cat/.1.png"),
}


def _append(path):
    state = path.stat()
    with open(path, "ab") as file:
        file.write(b"x")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _exchange(a, b):
    a.rename(a.with_name("aside"))
    b.rename(a)
    a.with_name("aside").rename(b)


def _forge(folder):
    state = folder.stat()
    write(folder, "4.png")
    os.utime(folder, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(tree, listings, change):
    indexed(tree, Options())
    CHANGES[change](tree)
    assert_listed(tree)
    assert len(listings) == 2
    settle()
    indexed(tree, Options())  # a change just now is not trusted yet
    indexed(tree, Options())
    assert len(listings) <= 3


def test_links_are_followed_when_looking_for_changes(tree, tmp_path, listings):
    elsewhere = write(tmp_path / "elsewhere", "a.png")
    (tree / "linked").symlink_to(elsewhere)
    (tree / "one.png").symlink_to(elsewhere / "a.png")
    (tree / "lost.png").symlink_to(tmp_path / "nowhere.png")
    settle()
    assert_listed(tree)
    assert_listed(tree)
    assert len(listings) == 1
    write(elsewhere, "b.png")
    settle()
    assert_listed(tree)
    assert len(listings) == 2
    shutil.copy(elsewhere / "a.png", tmp_path / "nowhere.png")
    assert_listed(tree)
    assert len(listings) == 3


def test_a_listing_right_after_a_change_is_not_trusted(tmp_path, listings):
    folder = write(tmp_path / "images", "a.png")
    indexed(folder, Options())
    indexed(folder, Options())
    assert len(listings) == 2


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_damaged_index_is_made_anew(tree, cache, listings, length):
    assert_listed(tree)
    (kept,) = (cache / "indices").iterdir()
    kept.write_bytes(kept.read_bytes()[:length])
    assert_listed(tree)
    assert len(listings) == 2
    assert_listed(tree)
    assert len(listings) == 2


@pytest.mark.parametrize("content", [b"\0" * 4096, b"{}", b"\xff" * 64, b"\x80\x04K\x01."])
def test_what_is_no_index_is_made_anew(tree, cache, listings, content):
    indexed(tree, Options())
    (kept,) = (cache / "indices").iterdir()
    kept.write_bytes(content)
    assert_listed(tree)
    assert len(listings) == 2


def test_an_index_with_another_count_is_made_anew(tree, cache, listings):
    from safetensors.numpy import save

    from tacit.data.names import load_arrays

    indexed(tree, Options())
    (kept,) = (cache / "indices").iterdir()
    arrays, metadata = load_arrays(kept)
    content = save(arrays | {"sizes": arrays["sizes"][1:].copy()}, metadata=metadata)
    del arrays
    kept.write_bytes(content)
    assert_listed(tree)
    assert len(listings) == 2


def test_of_many_files_a_sample_is_looked_at(tree, listings, monkeypatch):
    monkeypatch.setattr(index, "_ALL", 4)
    monkeypatch.setattr(index, "_SAMPLE", 2)
    indexed(tree, Options())
    looked = index._looked_at(5).tolist()
    assert 1 <= len(looked) <= 2
    names = sorted(NAMES)
    unseen = next(i for i in range(5) if i not in looked)
    os.utime(tree / names[unseen], ns=(7, 7))
    indexed(tree, Options())
    assert len(listings) == 1
    os.utime(tree)  # touch FOLDER
    assert 7 in indexed(tree, Options()).times
    assert len(listings) == 2
    settle()
    indexed(tree, Options())
    os.utime(tree / names[looked[0]], ns=(9, 9))
    assert 9 in indexed(tree, Options()).times


def test_the_sample_is_always_the_same_and_all_of_few():
    assert index._looked_at(1000).tolist() == list(range(1000))
    chosen = index._looked_at(1_000_000)
    np.testing.assert_array_equal(chosen, index._looked_at(1_000_000))
    assert 9_900 < len(chosen) <= 10_000
    assert np.histogram(chosen, 10, (0, 1_000_000))[0].min() > 900


def test_a_cache_that_cannot_be_written_lists_each_time(tree, tmp_path, listings):
    (tmp_path / "file").write_text("")
    options = Options(cache=tmp_path / "file")
    assert indexed(tree, options).names == sorted(NAMES)
    assert indexed(tree, options).names == sorted(NAMES)
    assert len(listings) == 2
