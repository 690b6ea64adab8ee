"""Files that would fill the memory, never end, or open others: one line each; none is opened or unpacked."""

import gzip
import io
import os
import socket
import struct
import time
import zipfile
import zlib

import h5py
import nibabel as nib
import numpy as np
import pytest
from pictures import smooth, write
from PIL import Image
from scans import save, scan
from tiffs import tiff

from tacit.data import limits
from tacit.data.image.decoding import read_header
from tacit.data.image.knees import convert_knees
from tacit.data.image.listing import list_images
from tacit.data.open import open_source
from tacit.data.reading import open_file, read_bytes
from tacit.errors import BadFile, TacitError, Unreadable, UsageError


def skipped(folder, **words):
    """The reasons by name, of what was left out; everything else is used."""
    return dict(open_source(folder, on_bad_file="skip", progress=False, **words).skipped)


def special(folder, ending):
    """Files that are no files, called as samples are; their names and what they are."""
    os.mkfifo(folder / f"fifo{ending}")
    os.symlink(folder / f"fifo{ending}", folder / f"linked{ending}")
    os.symlink("/dev/zero", folder / f"zero{ending}")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(folder / f"socket{ending}"))
    return {
        f"fifo{ending}": "a pipe, and only files are read",
        f"linked{ending}": "a pipe, and only files are read",
        f"socket{ending}": "a socket, and only files are read",
        f"zero{ending}": "a device, and only files are read",
    }


@pytest.fixture
def short(tmp_path_factory):
    """A folder with a short path, as sockets need."""
    folder = tmp_path_factory.mktemp("s")
    if len(os.fspath(folder)) > 80:
        pytest.skip("the path is too long for a socket")
    return folder


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_pipes_devices_and_sockets_among_pictures(short, ending):
    write(short, "good.png")
    expected = special(short, ending)
    assert skipped(short) == expected
    with pytest.raises(BadFile, match="only files are read"):
        open_source(short)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".h5", ".npz"])
def test_pipes_devices_and_sockets_among_volumes(short, ending):
    save(short / "good.nii.gz", scan())
    expected = special(short, ending)
    (short / f"socket{ending}").unlink()  # which is not listed
    found = skipped(short)
    assert found | {f"socket{ending}": expected[f"socket{ending}"]} == expected


def test_a_mask_that_is_a_pipe(tmp_path):
    write(tmp_path, *(f"images/{name}.png" for name in "abcd"))
    (tmp_path / "masks").mkdir()
    for name in "bcd":
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    os.mkfifo(tmp_path / "masks" / "a.png")
    source = open_source(tmp_path, on_bad_file="skip", progress=False)
    assert [bad.reason for bad in source.skipped] == ["its mask masks/a.png: a pipe, and only files are read"]


def test_a_pipe_among_radiographs_is_not_waited_for(tmp_path):
    Image.fromarray(smooth(800, 800)[..., 0]).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "report")
    assert convert_knees(tmp_path, tmp_path.with_suffix(".npz"), progress=False).images == 1


def test_a_file_is_read_no_further_than_its_size(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", "a") == b"12345"
    with pytest.raises(BadFile, match="a folder, and only files are read"):
        open_file(tmp_path, "x")
    with pytest.raises(Unreadable, match="does not exist"):
        read_bytes(tmp_path / "nowhere", "x")


def test_a_file_that_is_larger_than_the_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "free_memory", lambda: 64 * 2**20)
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2**40)  # all holes
    with pytest.raises(Unreadable, match=r"too large for the memory: decoding it takes 1,024\.0 GiB"):
        read_bytes(tmp_path / "a", "a")


def test_a_large_file_that_is_no_picture_is_known_by_its_beginning(tmp_path, monkeypatch):
    write(tmp_path, "good.png")
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**36)
    monkeypatch.setattr(limits, "free_memory", lambda: 2**40)
    assert skipped(tmp_path)["a.png"].startswith("not an image: it starts with b'\\x00")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits=8, colours=2, before=b"", data=b""):
    """A PNG that declares this size; the pixels are `data`."""
    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    parts = chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def frames_of_gif(count):
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 16, 16, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x80, 0, 0) + bytes(6) + frame * count + b";"


def pages_of_tiff(count):
    one = tiff(np.zeros((8, 8), np.uint8))
    size = len(one) - 64 - 8  # the directory, with the place of the next one at its end
    head, directory, pixels = one[:8], one[8 : 8 + size - 4], one[8 + size :]
    begin = 8 + len(pixels)
    directory = directory.replace(
        struct.pack("<HHII", 273, 4, 1, 8 + size), struct.pack("<HHII", 273, 4, 1, 8)
    )
    places = [*(begin + (k + 1) * size for k in range(count - 1)), 0]
    parts = (directory + struct.pack("<I", place) for place in places)
    return head[:4] + struct.pack("<I", begin) + pixels + b"".join(parts)


def header_of_array(shape, kind="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


WIDE = tiff(np.zeros((8, 8), np.uint8), width=2**31 - 1)
PICTURES = {
    "colours.png": (png(13_000, 13_000), "it declares 483.5 MiB in 57 bytes, which no real data need"),
    "alpha.png": (png(9_000, 9_000, colours=6), "it declares 309.0 MiB in 57 bytes"),
    "deep.png": (png(13_000, 13_000, 16, 0), "it declares 322.3 MiB in 57 bytes"),
    "wide.tif": (WIDE, "too many pixels to be decoded safely"),
    "long.tif": (tiff(np.zeros((8, 8), np.uint8), width=20_001), "20001 x 8 px: longer than 20000 px"),
    "moving.png": (png(16, 16, before=chunk(b"acTL", struct.pack(">II", 10**6, 0))), "1000001 frames: save"),
    "moving.gif": (frames_of_gif(300_000), "several frames: save the one that is meant"),
    "few.gif": (frames_of_gif(5), "5 frames: save the one that is meant"),
    "pages.tif": (pages_of_tiff(50_000), "100 or more frames: save the one"),
    "few.tif": (pages_of_tiff(7), "7 frames: save the one that is meant"),
    "huge.npy": (
        header_of_array((20_000, 20_000, 3)) + bytes(9),
        "damaged: shape (20000, 20000, 3) of uint8 takes 1.1 GiB, and it holds 9 bytes",
    ),
    "channels.npy": (header_of_array((4, 8, 10**7)), "shape (4, 8, 10000000): from 1 to 1024 channels"),
    "none.npy": (header_of_array((4, 8, 0)), "shape (4, 8, 0): from 1 to 1024 channels are read"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_declare_too_much(tmp_path, name):
    data, reason = PICTURES[name]
    write(tmp_path, "good.png")
    (tmp_path / name).write_bytes(data)
    began = time.monotonic()
    found = skipped(tmp_path)
    assert time.monotonic() - began < 5  # counting the pages took a minute
    assert list(found) == [name]
    assert found[name].startswith(reason)


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_bomb_is_known_by_its_header_alone(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # decoding would fail
    with pytest.raises(BadFile, match="which no real data need"):
        read_header("a.png", io.BytesIO(png(13_000, 13_000)))


def test_a_drawing_that_is_nearly_empty_is_read(tmp_path):
    """9,000 x 6,000 pixels in 157 KB: 1,000 times as much, and below what anything may unpack to."""
    rows = zlib.compress((b"\0" + bytes(3 * 9_000)) * 6_000, 1)
    (tmp_path / "plan.png").write_bytes(png(9_000, 6_000, data=rows))
    source = open_source(tmp_path, size=8, progress=False)
    assert source[0].extra["true_size"].tolist() == [6_000, 9_000]


def test_links_between_few_folders_make_no_millions_of_paths(tmp_path):
    write(tmp_path, *(f"{k}/{k}.png" for k in range(9)))
    for a in range(9):
        for b in range(9):
            if a != b:
                os.symlink(tmp_path / str(b), tmp_path / str(a) / f"to{b}")
    began = time.monotonic()
    listing = list_images(tmp_path)
    assert time.monotonic() - began < 5
    assert {f"{k}/{k}.png" for k in range(9)} <= set(listing.names)
    assert {reason for _, reason in listing.closed} == {
        "reached by more than 64 paths through links: remove links"
    }
    assert len(listing.closed) <= 9  # each folder once
    assert len(listing.names) <= 9 + 9 * 64


def test_a_folder_that_two_links_lead_to_is_in_both_places(tmp_path):
    write(tmp_path / "real", "a.png")
    (tmp_path / "shown").mkdir()
    for name in ("train", "test"):
        os.symlink(tmp_path / "real", tmp_path / "shown" / name)
    assert list(list_images(tmp_path / "shown").names) == ["test/a.png", "train/a.png"]


# volumes


def nifti(shape, kind=np.int16, begin=352):
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"], header["sform_code"] = begin, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    return header.binaryblock + bytes(4)


VOXELS = np.arange(512, dtype=np.int16).tobytes()
CUBE, SIDES = (8, 8, 8), (30_000, 30_000, 30_000)
VOLUMES = {
    "header.nii.gz": (gzip.compress(nifti(SIDES) + bytes(999)), "it declares 50,291.4 GiB in"),
    "header.nii": (nifti(SIDES) + bytes(999), "truncated: 999 of 54000000000000 bytes of voxels"),
    "zeros.nii.gz": (gzip.compress(nifti((1024, 1024, 129)) + bytes(9)), "it declares 258.0 MiB in"),
    "inside.nii": (nifti(CUBE, begin=0) + VOXELS, "damaged: its voxels begin at byte 0, within the header"),
    "negative.nii": (
        nifti(CUBE, begin=-8) + VOXELS,
        "damaged: its voxels begin at byte -8, within the header",
    ),
    "none.nii": (nifti(CUBE, begin=np.nan) + VOXELS, "damaged: "),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_that_declare_too_much(tmp_path, name):
    data, reason = VOLUMES[name]
    save(tmp_path / "good.nii.gz", scan())
    (tmp_path / name).write_bytes(data)
    found = skipped(tmp_path)
    assert list(found) == [name]
    assert found[name].startswith(reason)


def test_what_follows_the_voxels_is_not_unpacked(tmp_path, monkeypatch):
    read = []
    once = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n: read.append(len(d := once(self, n))) or d)
    data = nifti((8, 8, 8)) + VOXELS + bytes(64 * 2**20)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data, 1))
    assert len(open_source(tmp_path, progress=False)) == 1
    assert sum(read) < 40 * 2**20


def test_a_volume_that_does_not_fit_into_the_memory_is_tried_again(tmp_path, monkeypatch):
    save(tmp_path / "good.nii.gz", scan())
    save(tmp_path / "large.nii", scan((128, 128, 400)))  # 13 MB, and 39 with two copies
    monkeypatch.setattr(limits, "free_memory", lambda: 48 * 2**20)
    assert skipped(tmp_path) == {
        "large.nii": "too large for the memory: decoding it takes 37.5 MiB, and 48.0 MiB are free"
    }
    monkeypatch.setattr(limits, "free_memory", lambda: 51 * 2**20)
    assert skipped(tmp_path) == {}


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, make in arrays.items():
            make(file, name)


def stored(file, name):
    file[name] = scan()


def test_hdf5_that_declares_what_it_does_not_hold(tmp_path):
    hdf5(tmp_path / "good.h5", image=stored)
    hdf5(tmp_path / "bad.h5", image=lambda file, name: file.create_dataset(name, (1200, 1200, 1200), "i2"))
    assert skipped(tmp_path)["bad.h5"].startswith("it declares 3.2 GiB in")


def outside(folder):
    """An HDF5 file and a raw one that no other file has to open."""
    hdf5(folder / "secret.hdf", image=stored)
    (folder / "secret.bin").write_bytes(os.urandom(1024))
    return folder


LINKS = {
    "external link": lambda file, name, out: file.__setitem__(
        name, h5py.ExternalLink(out / "secret.hdf", "image")
    ),
    "external storage": lambda file, name, out: file.create_dataset(
        name, (8, 8, 8), "i2", external=[(str(out / "secret.bin"), 0, 1024)]
    ),
    "link to a link": lambda file, name, out: (
        file.__setitem__("other", h5py.ExternalLink(out / "secret.hdf", "image")),
        file.__setitem__(name, h5py.SoftLink("/other")),
    ),
    "link through a link": lambda file, name, out: (
        file.__setitem__("other", h5py.ExternalLink(out / "secret.hdf", "/")),
        file.__setitem__(name, h5py.SoftLink("/other/image")),
    ),
    "virtual": lambda file, name, out: file.create_virtual_dataset(name, virtual(out)),
    "loop": lambda file, name, out: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
}


def virtual(folder):
    layout = h5py.VirtualLayout((9, 8, 7), "i2")
    layout[:] = h5py.VirtualSource(folder / "secret.hdf", "image", (9, 8, 7))
    return layout


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("part", ["image", "label", "spacing"])
def test_hdf5_opens_no_other_file(tmp_path, kind, part):
    out = outside(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    hdf5(folder / "good.h5", image=stored)
    others = {} if part == "image" else {"image": stored}
    hdf5(folder / "bad.h5", **others, **{part: lambda file, name: LINKS[kind](file, name, out)})
    assert skipped(folder) == {
        "bad.h5": f"its {part} is not in this file, but a link to another: save it in this one"
    }


def test_a_link_within_an_hdf5_file_is_followed(tmp_path):
    hdf5(
        tmp_path / "a.h5",
        voxels=stored,
        image=lambda file, name: file.__setitem__(name, h5py.SoftLink("/voxels")),
    )
    hdf5(tmp_path / "b.h5", image=stored)
    source = open_source(tmp_path, progress=False)
    assert source.stored[0].facts.digest == source.stored[1].facts.digest


def npz(path, **members):
    """members: the bytes of each; a header may declare more."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_npz_volumes_that_declare_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 2**20)
    save(tmp_path / "good.nii", scan())
    npz(tmp_path / "huge.npz", image=header_of_array((10**4, 10**4, 10**4)) + bytes(99))
    npz(tmp_path / "zeros.npz", image=array(np.zeros((128, 128, 129), np.uint8)))
    npz(tmp_path / "spacing.npz", image=array(scan()), spacing=array(np.ones(10**6)))
    npz(tmp_path / "negative.npz", image=header_of_array((-8, -8, 8)) + bytes(999))
    found = skipped(tmp_path)
    assert found.pop("huge.npz") == (
        "damaged: shape (10000, 10000, 10000) of uint8 takes 931.3 GiB, and it holds 99 bytes"
    )
    assert found.pop("zeros.npz").startswith("it declares 2.0 MiB in ")
    assert found.pop("spacing.npz") == "its spacing has shape (1000000,): three numbers in mm are needed"
    assert found.pop("negative.npz") == "damaged: its shape is (-8, -8, 8)"
    assert found == {}


def test_a_mask_may_be_emptier_than_a_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 2**18)
    save(tmp_path / "a.nii.gz", scan((128, 128, 128), dtype=np.uint8, low=0, high=250))
    mask = np.zeros((128, 128, 128), np.uint8)
    mask[0, 0, 0] = 1
    packed = save(tmp_path / "a_seg.nii.gz", mask).stat().st_size
    assert 200 * packed < mask.nbytes < 1032 * packed
    assert skipped(tmp_path) == {}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (10**8, 100, 100),
            r"images: damaged: shape \(100000000, 100, 100\) of uint8 takes 931\.3 GiB, and it holds",
        ),
        ((2, -100, 100), r"images is damaged: its shape is \(2, -100, 100\)"),
    ],
)
def test_archives_of_pictures_that_declare_too_much(tmp_path, shape, message):
    npz(tmp_path / "a.npz", images=header_of_array(shape) + bytes(99))
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / "a.npz")


def test_an_archive_of_pictures_that_fills_the_memory(tmp_path, monkeypatch):
    npz(tmp_path / "zeros.npz", images=array(np.zeros((50, 256, 256), np.uint8)))
    with monkeypatch.context() as patch:
        patch.setattr(limits, "UNPACKED", 2**20)
        with pytest.raises(
            UsageError, match=r"images: it declares 3\.1 MiB in 3\.\d KiB, which no real data"
        ):
            open_source(tmp_path / "zeros.npz")
    monkeypatch.setattr(limits, "_SMALL", 0)
    monkeypatch.setattr(limits, "free_memory", lambda: 2**20)
    with pytest.raises(TacitError, match="images: too large for the memory"):
        open_source(tmp_path / "zeros.npz")
