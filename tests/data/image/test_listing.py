import os
import sys

import numpy as np
import pytest
from pictures import write

from tacit.data.image.listing import list_images


def test_hidden_files_are_left_out_and_names_are_sorted_paths(tmp_path):
    write(tmp_path, "b.PNG", "a/z.Jpeg", "a.bmp", ".hidden.png", ".git/c.png", "a/b/c.webp", "a-b.gif")
    (tmp_path / "notes.txt").write_text("x")
    listing = list_images(tmp_path)
    assert listing.names == ["a-b.gif", "a.bmp", "a/b/c.webp", "a/z.Jpeg", "b.PNG"]
    assert listing.sizes.tolist() == [(tmp_path / name).stat().st_size for name in listing.names]
    assert listing.others == {".txt": 1}


def test_links_are_followed_but_never_in_circles(tmp_path):
    write(tmp_path / "real", "a.png")
    write(tmp_path / "shown", "b.png")
    (tmp_path / "shown" / "more").symlink_to(tmp_path / "real")
    (tmp_path / "shown" / "again").symlink_to(tmp_path / "shown")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "shown")
    assert list_images(tmp_path / "shown").names == ["b.png", "more/a.png"]


def test_names_are_in_the_order_of_whole_paths(tmp_path):
    names = ["a-b/1.png", "a.b/1.png", "a.png", "a/b.png", "a/b/1.png", "a/b-c.png", "a/é.png", "a0.png",
             "aa/z.png", "é/1.png", "日本/1.png", "\U0001f600.png"]  # fmt: skip
    write(tmp_path, *names)
    listing = list_images(tmp_path)
    assert list(listing.names) == sorted(names)
    for name, k in zip(listing.names, listing.folder_of, strict=True):
        assert name.removeprefix(listing.folders[int(k)]) == name.rpartition("/")[2]
    assert sorted(listing.folders) == ["", "a-b/", "a.b/", "a/", "a/b/", "aa/", "é/", "日本/"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text_can_be_opened(tmp_path):
    place = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(place, "wb") as file:
        file.write(b"x")
    listing = list_images(tmp_path)
    assert os.fsencode(listing.names[0]) == b"caf\xe9.png"
    assert os.path.exists(tmp_path / listing.names[0])


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    listing = list_images(tmp_path)
    assert (list(listing.names), listing.sizes.tolist()) == (["a.png"], [-1])


@pytest.mark.parametrize("change", ["name", "size", "time", "place", "nothing"])
def test_the_digest_is_of_place_names_sizes_and_times(tmp_path, change):
    folder = write(tmp_path / "images", "a.png", "b/c.png")
    for path in (folder / "a.png", folder / "b" / "c.png"):
        os.utime(path, ns=(5, 5))
    before = list_images(folder).digest
    if change == "name":
        (folder / "a.png").rename(folder / "d.png")
    elif change == "size":
        with open(folder / "a.png", "ab") as file:
            file.write(b"x")
        os.utime(folder / "a.png", ns=(5, 5))
    elif change == "time":
        os.utime(folder / "a.png", ns=(5, 6))
    elif change == "place":
        folder = folder.rename(tmp_path / "moved")
    else:
        (folder / "empty").mkdir()
        (folder / "notes.txt").write_text("x")
    assert (list_images(folder).digest == before) == (change == "nothing")


def test_deep_kinds_are_looked_at_for_their_white(tmp_path):
    write(tmp_path, "a.png", "b.jpg", "c.TIF", "d.bmp")
    np.save(tmp_path / "e.npy", np.zeros((8, 8), np.uint16))
    assert list_images(tmp_path).white_from() == [0, 2, 4]
