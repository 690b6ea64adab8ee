import copy
import json
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import png_header, smooth, turned
from PIL import Image, ImageOps, PngImagePlugin

from tacit.data.image import mask_store
from tacit.data.image.decoding import orientation_of, upright
from tacit.data.image.form import ImageForm
from tacit.data.image.mask_files import Seen, class_values, read_mask
from tacit.data.image.masks import MaskedImages, masked_of
from tacit.data.open import open_source
from tacit.encoders.zoo import build_encoder
from tacit.errors import BadFile, TacitError, UsageError

FORM = ImageForm(channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def picture(path, height=30, width=40, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth(height, width, seed)).save(path)


def box(height=30, width=40, value=255, top=0.2, left=0.5):
    """A rectangle down to 0.6 of the height and right to 0.75 of the width."""
    mask = np.zeros((height, width), np.uint8)
    mask[round(top * height) : round(0.6 * height), round(left * width) : round(0.75 * width)] = value
    return mask


def save(path, mask, mode=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    (image.convert(mode) if mode else image).save(path, **how)


@pytest.fixture
def pair(tmp_path):
    """Six images, of which four have a mask of 0 and 255."""
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png", 30, 40 + i, i)
        if i < 4:
            save(tmp_path / "masks" / f"{i}.png", box(30, 40 + i))
    return tmp_path


def one(folder, mask, name="a.png", mode=None, **how):
    """One image with this mask."""
    picture(folder / "images" / "a.png", *mask.shape[:2])
    save(folder / "masks" / name, mask, mode, **how)
    return folder


def test_folders_side_by_side(pair):
    source = open_source(pair)
    assert isinstance(source, MaskedImages)
    assert source.spec.target == "mask"
    assert source.spec.classes == ("background", "1")
    assert list(source.names) == [f"images/{i}.png" for i in range(6)]
    assert source.labels.tolist() == [0, 0, 0, 0, -1, -1]
    assert source.labelled.tolist() == [0, 1, 2, 3]
    assert source.understood == "4 of 6 images have a mask of background (0), 1 (255)"
    assert source.file_values == (0, 255)
    assert source.root == (pair).resolve()
    sample, side = source[2], source.spec.shape[-1]
    assert sample.target.shape == (side, side)
    assert sample.target.dtype == torch.int64
    assert sample.name == "images/2.png"
    assert sample.index == 2
    assert sample.extra["true_size"].tolist() == [30, 42]
    assert source[5].target is None
    assert source[-1].index == 5
    batch = source.batch([5, 0])
    assert batch.target is None
    assert batch.index.tolist() == [5, 0]
    assert torch.equal(batch.data[1], source[0].data)


def test_a_mask_keeps_its_place(pair):
    sample = open_source(pair, size=20)[0]
    expected = np.zeros((20, 20), np.int64)
    expected[4:12, 10:15] = 1
    assert sample.target.numpy().tolist() == expected.tolist()
    cut = FORM.cut(sample, np.random.default_rng(0), turn=False)
    rows, columns = (np.flatnonzero(cut.target.numpy().any(axis)) for axis in (1, 0))
    # centres of pixels at 0.2 to 0.6 of the height and 0.5 to 0.75 of the width
    assert rows.tolist() == list(range(6, 19))
    assert columns.tolist() == list(range(16, 24))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "labels/a.tif"),
        ("IMAGES/a.png", "Masks/a.png"),
        ("image/a.png", "label/a.bmp"),
        ("images/a.png", "annotations/a.gif"),
        ("images/a.png", "annotations/trimaps/a.png"),
        ("images/a.png", "segmentations/a_seg.png"),
        ("images/cats/a.png", "masks/cats/a.png"),
        ("some/images/a.png", "some/masks/a_mask.png"),
        ("a.png", "masks/a.png"),
        ("a.png", "a_mask.png"),
        ("b/a.png", "b/a_seg.png"),
        ("b/a.png", "b/a-label.png"),
        ("imagesTr/a_0000.png", "labelsTr/a.png"),
        ("images/a.png", "masks/a.npy"),
    ],
)
def test_where_masks_are_found(tmp_path, image, mask):
    picture(tmp_path / image)
    if mask.endswith(".npy"):
        (tmp_path / mask).parent.mkdir(parents=True)
        np.save(tmp_path / mask, box(value=1))
    else:
        save(tmp_path / mask, box(value=1))
    source = open_source(tmp_path)
    assert list(source.names) == [image]
    assert source.labels.tolist() == [0]
    assert source.spec.classes == ("background", "1")
    assert source.read_mask(0).tolist() == box(value=1).tolist()


@pytest.mark.parametrize(
    ("images", "masks"), [("{}/images", "{}/masks"), ("images/{}", "masks/{}"), ("{}", "{}/labels")]
)
def test_splits(tmp_path, images, masks):
    for split in ("train", "valid", "test"):
        for i in range(3):
            picture(tmp_path / images.format(split) / f"{i}.png", seed=i)
            if split != "valid":
                save(tmp_path / masks.format(split) / f"{i}.png", box(value=i))
    source = open_source(tmp_path)
    assert len(source) == 9
    assert source.spec.classes == ("background", "1", "2")
    assert {name: len(at) for name, at in source.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert (source.labels[source.splits["val"]] == -1).all()
    assert source[int(source.splits["test"][2])].target.unique().tolist() == [0, 2]
    aside = open_source(tmp_path, labels="none")
    assert {name: len(at) for name, at in aside.splits.items()} == {"train": 3, "val": 3, "test": 3}


def test_nnunet_test_folder(tmp_path):
    for part in ("Tr", "Ts"):
        picture(tmp_path / f"images{part}" / f"{part}_0000.png")
        save(tmp_path / f"labels{part}" / f"{part}.png", box(value=1))
    source = open_source(tmp_path)
    assert {name: at.tolist() for name, at in source.splits.items()} == {"train": [0], "test": [1]}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("suffix", ["", "_mask", "_labels"])
def test_a_folder_of_masks_that_is_named(tmp_path, inside, suffix):
    data = tmp_path / "data"
    masks = (data if inside else tmp_path) / "drawn"
    for i, folder in enumerate(("one", "two")):
        picture(data / folder / "a.png", seed=i)
        picture(data / folder / f"only{i}.jpg", seed=i)
        save(masks / folder / f"a{suffix}.png", box(value=i + 1))
    save(masks / f"only1{suffix}.png", box(value=2))
    source = open_source(data, masks=masks)
    assert list(source.names) == ["one/a.png", "one/only0.jpg", "two/a.png", "two/only1.jpg"]
    assert source.labels.tolist() == [0, -1, 0, 0]
    assert source[2].target.unique().tolist() == [0, 2]


def test_named_masks_go_before_those_beside(pair):
    save(pair.parent / "others" / "0.png", box(value=1))
    source = open_source(pair, masks=pair.parent / "others")
    assert len(source) == 6
    assert source.labelled.tolist() == [0]


def test_masks_that_are_left_aside(pair, tmp_path):
    save(pair / "masks" / "3.png", np.full((9, 9), 77, np.uint8))  # not looked into
    (tmp_path / "labels.csv").write_text("file,label\nimages/0.png,a\nimages/4.png,b\n")
    plain = open_source(pair, labels="none")
    assert len(plain) == 6
    assert plain.spec.target == "class"
    assert not len(plain.labelled)
    assert plain[0].target is None
    classes = open_source(pair, labels=tmp_path / "labels.csv")
    assert classes.spec.classes == ("a", "b")
    assert classes.labels.tolist() == [0, -1, -1, -1, 1, -1]


def test_an_open_source_with_other_labels(pair, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\nimages/0.png,a\nimages/4.png,b\nimages/5.png,c\n")
    source = open_source(open_source(pair), labels=tmp_path / "labels.csv")
    assert source[0].label == 0
    assert source[0].target is None
    assert source[4].label == 1
    assert source.understood == ""
    assert open_source(open_source(pair), labels="none").understood == ""


def test_class_folders_called_as_masks_are(tmp_path, capsys):
    for name in ("labels", "boxes"):
        for i in range(4):
            picture(tmp_path / name / f"{i}.png", seed=i)
    source = open_source(tmp_path)
    assert source.spec.classes == ("boxes", "labels")
    assert len(source) == 8
    assert capsys.readouterr().err == ""


def test_photos_in_a_folder_masks_are_images(tmp_path, photos):
    for i in range(4):
        for name, photo in zip(("images", "masks"), photos.values(), strict=True):
            picture(tmp_path / name / f"{i}.png")
            Image.fromarray(photo[:60, 9 * i : 9 * i + 60]).save(tmp_path / name / f"{i}.png")
    source = open_source(tmp_path)
    assert source.spec.classes == ("images", "masks")
    assert len(source) == 8
    assert "do not look like masks" in source.notes[0]


def test_few_matching_names_are_no_masks(tmp_path):
    for name in ("bottle.png", "cap.png", *(f"{i}_label.png" for i in range(5)), "cap_label.png"):
        save(tmp_path / "wine" / name, box(value=3))
        save(tmp_path / "beer" / name, box(value=3))
    source = open_source(tmp_path)
    assert len(source) == 16
    assert source.spec.classes == ("beer", "wine")
    assert "only 2 have an image" in source.notes[0]


def palette(mask, **how):
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 0, 0, 255])
    return image


def test_every_kind_of_mask(tmp_path):
    wanted = box(value=1)
    wanted[0, :] = 2
    kinds = {
        "grey.png": Image.fromarray(wanted),
        "palette.png": palette(wanted),
        "palette.bmp": palette(wanted),
        "palette.gif": palette(wanted),
        "rgb.png": Image.fromarray(np.repeat(wanted[..., None], 3, 2)),
        "rgba.png": Image.fromarray(np.dstack([wanted] * 3 + [np.full_like(wanted, 255)])),
        "la.png": Image.fromarray(wanted).convert("LA"),
        "deep.png": Image.fromarray(wanted.astype(np.uint16)),
        "deep.tif": Image.fromarray(wanted.astype(np.int32)),
    }
    for k, (name, mask) in enumerate(kinds.items()):
        picture(tmp_path / "images" / f"{k}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{k}{name[name.rindex('.') :]}")
    source = open_source(tmp_path)
    assert source.spec.classes == ("background", "1", "2")
    for k, name in enumerate(kinds):
        assert source.read_mask(k).tolist() == wanted.tolist(), name


def test_one_bit_masks(tmp_path):
    source = open_source(one(tmp_path, box(), mode="1"))
    assert source.file_values == (0, 1)
    assert source[0].target.sum() > 0


def test_a_jpeg_of_two_values(tmp_path):
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 16:32] = 255  # whole blocks of 8 px
    source = open_source(one(tmp_path, mask, "a.jpg", quality=100))
    assert source.read_mask(0).tolist() == (mask // 255).tolist()


BAD = {
    "colours": (
        np.dstack([box(), box(value=9), box(value=100)]),
        "a.png: its mask masks/a.png: it has 2 colours, and masks have none: save one class number per pixel",
    ),
    "smooth colours": (
        smooth(30, 40),
        "colours, and masks have none; so many come from smooth edges (JPEG, or resized with smoothing)",
    ),
    "beyond": (
        box().astype(np.uint16) * 2,
        "its mask masks/a.png: it holds the value 510, and classes are numbers from 0 to 255",
    ),
    "float": (box().astype(np.float32), "floating-point pixels: save one class number per pixel"),
    "size": (
        box(20, 30),
        "its mask masks/a.png: 30 x 20 px, and the image is 40 x 30 px (fix or remove it",
    ),
    "transparent": (
        np.dstack([np.zeros((30, 40, 3), np.uint8), box()]),
        "its transparency is the mask: save one class number",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_masks_that_cannot_be_used(tmp_path, kind):
    mask, words = BAD[kind]
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    save(tmp_path / "masks" / "a.png", mask) if mask.dtype != np.float32 else None
    if mask.dtype == np.float32:
        save(tmp_path / "masks" / "a.tif", mask)
        words = words.replace("a.png", "a.tif")
    save(tmp_path / "masks" / "b.png", box())
    with pytest.raises(BadFile) as caught:
        open_source(tmp_path, masks=tmp_path / "masks")
    assert words.removeprefix("a.png: ").replace("masks/", "") in str(caught.value).replace("masks/", "")
    assert str(caught.value).startswith("images/a.png: its mask")
    assert "\n" not in str(caught.value)
    source = open_source(tmp_path, masks=tmp_path / "masks", on_bad_file="skip")
    assert list(source.names) == ["images/b.png"]
    assert source.labels.tolist() == [0]
    assert [file.name for file in source.skipped] == ["images/a.png"]
    assert source[0].index == 0
    assert source.batch([0]).index.tolist() == [0]
    assert torch.equal(source.batch([0]).data[0], source[0].data)
    assert source.read_mask(0).max() == 1


def test_a_jpeg_with_blurred_values_and_a_damaged_mask(tmp_path):
    with pytest.raises(BadFile, match=r"JPEG, which has blurred its values to [0-9]+ different ones: save"):
        open_source(one(tmp_path, box(31, 43), "a.jpg", quality=60))
    (tmp_path / "masks" / "a.jpg").unlink()
    (tmp_path / "masks" / "a.png").write_bytes(png_header(43, 31))
    with pytest.raises(BadFile, match=r"its mask a.png: damaged"):
        open_source(tmp_path, masks=tmp_path / "masks")
    with pytest.raises(TacitError, match=r"none of the 1 masks can be used; images/a.png: its mask a.png"):
        open_source(tmp_path, masks=tmp_path / "masks", on_bad_file="skip")


def test_colour_of_sixteen_bits(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    rows = b"".join(b"\0" + bytes(240) for _ in range(30))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0))
    (tmp_path / "masks" / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with pytest.raises(BadFile, match="16 bits a channel, of which only 8 are read: save one class number"):
        open_source(tmp_path)


def test_a_mask_upright_beside_a_turned_photo(tmp_path):
    (tmp_path / "images").mkdir()
    upright = turned(tmp_path / "images" / "a.jpg")
    red = (upright[..., 0] > 100).astype(np.uint8)
    save(tmp_path / "masks" / "a.png", red)
    source = open_source(tmp_path, size=16)
    assert source.read_mask(0).tolist() == red.tolist()
    assert source[0].target.tolist() == (source[0].data[0] > 100).long().tolist()
    save(tmp_path / "masks" / "a.png", np.zeros((39, 24), np.uint8))
    with pytest.raises(
        BadFile, match="24 x 39 px, and the image is 24 x 40 px, upright as its EXIF data say"
    ):
        open_source(tmp_path)


def photo(path, stored, orientation, **how):
    """An image whose red is the mask `stored`, which its EXIF data turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.repeat(stored[..., None] * np.uint8(200), 3, 2))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **how)


def check_masks_lie_on_images(source):
    """In the stored squares and in the original size."""
    for i in range(len(source)):
        found, sample = source.read_mask(i), source[i]
        assert sample.target.tolist() == (sample.data[0] > 100).long().tolist(), source.names[i]
        assert found.shape == tuple(sample.extra["true_size"].int().tolist())
        assert found.sum() == 24, source.names[i]
        assert (mask_store.nearest(found, *sample.target.shape) == sample.target.numpy()).all()


CORNER = np.zeros((12, 24), np.uint8)
CORNER[:4, :6] = 1
SQUARE = CORNER[:, :12].copy()
IMAGES = [(SQUARE, 6), (SQUARE, 3), (CORNER, 2), (CORNER, 8), (CORNER, 1)]  # and their orientations


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_does(tmp_path, orientation):
    photo(tmp_path / "a.png", CORNER, orientation)
    with Image.open(tmp_path / "a.png") as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))[..., 0] > 100
    assert upright(CORNER, orientation).tolist() == wanted.astype(int).tolist()


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("own", range(1, 9))
def test_a_mask_turned_by_its_own_exif_data(tmp_path, own, ending):
    for k, (stored, orientation) in enumerate(IMAGES):
        photo(tmp_path / "images" / f"{k}.png", stored, orientation)
        mask = upright(upright(stored, orientation), {6: 8, 8: 6}.get(own, own))
        exact = {"lossless": True} if ending == "webp" else {}
        photo(tmp_path / "masks" / f"{k}.{ending}", mask, own, **exact)
    source = open_source(tmp_path, size=24)
    assert len(source) == 5
    check_masks_lie_on_images(source)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("ending", ["png", "npy"])
def test_sides_tell_whether_a_mask_is_turned(tmp_path, orientation, ending):
    masks = {"stored": CORNER, "upright": upright(CORNER, orientation)}
    (tmp_path / "masks").mkdir()
    for name, mask in masks.items():
        photo(tmp_path / "images" / f"{name}.png", CORNER, orientation)
        at = tmp_path / "masks" / f"{name}.{ending}"
        np.save(at, mask) if ending == "npy" else save(at, mask)
    source = open_source(tmp_path, size=24)
    check_masks_lie_on_images(source)
    again = open_source(tmp_path, size=24)  # from the cache
    check_masks_lie_on_images(again)
    check_masks_lie_on_images(pickle.loads(pickle.dumps(again)))


@pytest.mark.parametrize(
    ("stored", "orientation"), [(CORNER, 2), (CORNER, 3), (CORNER, 4), (SQUARE, 3), (SQUARE, 6)]
)
@pytest.mark.parametrize("as_seen", [False, True])
def test_a_mask_that_may_be_turned_or_not_is_refused(tmp_path, stored, orientation, as_seen):
    photo(tmp_path / "images" / "a.png", stored, orientation)
    save(tmp_path / "masks" / "a.png", upright(stored, orientation) if as_seen else stored)
    for name in ("b.png", "c.png"):
        photo(tmp_path / "images" / name, SQUARE, 1)
        save(tmp_path / "masks" / name, SQUARE)
    with pytest.raises(BadFile) as caught:
        open_source(tmp_path, size=24)
    assert str(caught.value).startswith(
        "images/a.png: its mask masks/a.png: the image is turned by its EXIF data "
        f"(orientation {orientation}) and its mask does not say whether it is: save the picture upright "
        "(exiftran, ImageOps.exif_transpose) with its mask on top of it"
    )
    assert "\n" not in str(caught.value)
    source = open_source(tmp_path, size=24, on_bad_file="skip")
    assert list(source.names) == ["images/b.png", "images/c.png"]
    # what the message asks for mends it, though the mask's file is the same
    if as_seen:
        photo(tmp_path / "images" / "a.png", upright(stored, orientation), 1)
        check_masks_lie_on_images(open_source(tmp_path, size=24))


def test_a_lying_mask_of_an_image_without_exif_data(tmp_path):
    picture(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png", box(40, 30))
    with pytest.raises(BadFile, match=r"30 x 40 px, and the image is 40 x 30 px \(fix"):
        open_source(tmp_path)


def test_the_orientation_is_known_without_decoding(tmp_path, monkeypatch):
    image = Image.fromarray(smooth(30, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "none")
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    image.save(tmp_path / "xmp.png", pnginfo=texts)
    image.save(tmp_path / "exif.png", exif=exif)
    whole = (tmp_path / "exif.png").read_bytes()
    begin = whole.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(whole[begin : begin + 4], "big")
    (tmp_path / "behind.png").write_bytes(whole[:begin] + whole[end:-12] + whole[begin:end] + whole[-12:])
    for ending in ("jpg", "tif", "webp"):
        image.save(tmp_path / f"a.{ending}", exif=exif)
    np.save(tmp_path / "a.npy", smooth(30, 40))
    (tmp_path / "cut.png").write_bytes(whole[:begin] + whole[end : end + 50])
    found = {path.name: orientation_of(path) for path in sorted(tmp_path.iterdir())}
    turned = dict.fromkeys(["a.jpg", "a.tif", "a.webp", "behind.png", "exif.png"], 6)
    assert found == {**turned, "xmp.png": 8, "a.npy": 1, "cut.png": 1}
    exif[0x0112] = 9
    image.save(tmp_path / "wrong.jpg", exif=exif)
    assert orientation_of(tmp_path / "wrong.jpg") == 1
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "none")
    image.save(tmp_path / "plain.png", pnginfo=texts)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert orientation_of(tmp_path / "plain.png") == 1


@pytest.mark.parametrize(
    ("values", "meaning"),
    [
        ([0], (0,)),
        ([0, 1], (0, 1)),
        ([1], (0, 1)),
        ([0, 255], (0, 255)),
        ([0, 128], (0, 128)),
        ([255], (0, 255)),
        ([0, 2], (0, 1, 2)),  # of three classes, one of which these masks lack
        ([0, 1, 2], (0, 1, 2)),
        ([1, 2, 3], (0, 1, 2, 3)),
        ([0, 1, 3], (0, 1, 2, 3)),
        (list(range(150)), tuple(range(150))),
        ([0, 128, 255], "hold the values 0, 128, 255 (255 in f255): classes are numbered 0, 1, 2, ..."),
        ([0, 85, 170, 255], "hold the values 0, 85, 170, 255"),
        ([0, 50, 100], "hold the values 0, 50, 100"),
        ([0, 5], "hold the values 0, 5"),
        ([0, 1, 2, 255], "hold 255 (f255) beside 0, 1, 2: pixels of no class (void)"),
        ([0, 1, 255], "(void) are not supported yet; set them to 0"),
        (list(range(256)), "256 different values up to 255 (f255), which come from smooth edges"),
    ],
)
def test_what_values_mean(tmp_path, values, meaning):
    save(tmp_path / "a.png", box())
    paths = [tmp_path / "a.png"]
    seen = {value: Seen(10, f"f{value}") for value in values}
    if isinstance(meaning, tuple):
        assert class_values(seen, paths) == meaning
    else:
        with pytest.raises(UsageError) as caught:
            class_values(seen, paths)
        assert meaning in str(caught.value)
        assert "\n" not in str(caught.value)


def test_smooth_edges_below_255(tmp_path):
    save(tmp_path / "a.png", box())
    paths = [tmp_path / "a.png"]
    seen = {value: Seen(10, "a") for value in range(0, 201)}
    assert len(class_values(seen, paths)) == 201
    with pytest.raises(UsageError, match="smooth edges"):
        class_values({**seen, 0: Seen(9000, "a"), 200: Seen(4000, "a")}, paths)


@pytest.mark.parametrize("values", [66, 100, 240])
def test_grey_pictures_are_no_masks(tmp_path, values):
    draw = np.random.default_rng(0)
    for i in range(3):
        picture(tmp_path / "data" / f"{i}.png")
        save(tmp_path / "grey" / f"{i}.png", draw.integers(0, values, (30, 40), np.uint8))
    with pytest.raises(UsageError) as caught:
        open_source(tmp_path / "data", masks=tmp_path / "grey")
    assert str(caught.value) == (
        f"the masks hold {values} different values, as grey pictures do: classes are numbered 0, 1, 2, ...; "
        "name the folder of the masks"
    )


def test_many_classes_are_real(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", 80, 100)
        save(
            tmp_path / "masks" / f"{i}.png",
            np.repeat(np.arange(50 * i, 50 * i + 50, dtype=np.uint8), 160).reshape(80, 100),
        )
    assert len(open_source(tmp_path).spec.classes) == 150


def test_values_are_refused_in_one_line(tmp_path):
    mask = box(value=128)
    mask[-1] = 255
    with pytest.raises(UsageError, match=r"the masks hold the values 0, 128, 255 \(255 in masks/a.png\)"):
        open_source(one(tmp_path, mask))


def test_masks_without_an_image(pair):
    save(pair / "masks" / "typo.png", box())
    save(pair / "masks" / "typo2.png", box())
    with pytest.raises(BadFile, match=r"masks/typo.png: a mask without an image"):
        open_source(pair)
    source = open_source(pair, on_bad_file="skip")
    assert len(source) == 6
    assert [file.name for file in source.skipped] == [
        "masks/typo.png",
        "masks/typo2.png",
    ]
    with pytest.raises(UsageError, match=r"2 masks in .* fit no image, typo.png is the first: rename"):
        open_source(pair, masks=pair / "masks")
    assert len(open_source(pair, masks=pair / "masks", on_bad_file="skip").labelled) == 4


def test_folders_of_masks_that_are_refused(pair, tmp_path):
    with pytest.raises(UsageError, match="no folder of masks nowhere"):
        open_source(pair, masks="nowhere")
    with pytest.raises(UsageError, match="holds the images too"):
        open_source(pair, masks=pair)
    with pytest.raises(UsageError, match="holds the images too"):
        open_source(pair / "images", masks=pair)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no masks in .*empty \(read are"):
        open_source(pair, masks=tmp_path / "empty")
    save(tmp_path / "others" / "z.png", box())
    for way in ("stop", "skip"):
        with pytest.raises(
            UsageError, match=r"no mask in .*others is called as an image is: the first are z.png"
        ):
            open_source(pair, masks=tmp_path / "others", on_bad_file=way)
    with pytest.raises(
        UsageError, match="masks is for folders of images or volumes, and digits holds images"
    ):
        open_source("digits", masks=pair / "masks")
    with pytest.raises(UsageError, match="window is for volumes"):
        open_source(pair, masks=pair / "masks", window="minmax")


def test_masks_that_fit_two_images_and_two_masks_of_one(pair):
    picture(pair / "images" / "0.jpg")
    with pytest.raises(UsageError, match=r"masks/0.png fits 2 images \(images/0.jpg, images/0.png\)"):
        open_source(pair)
    (pair / "images" / "0.jpg").unlink()
    save(pair / "masks" / "0_mask.png", box())
    with pytest.raises(
        UsageError, match=r"images/0.png has two masks, masks/0.png and masks/0_mask.png: merge"
    ):
        open_source(pair)
    assert len(open_source(pair, labels="none")) == 6


def test_a_folder_of_masks_alone(pair):
    save(pair / "masks" / "more" / "a.png", box())
    for i in range(4):
        (pair / "masks" / f"{i}.png").unlink()
    with pytest.raises(UsageError, match=r"no images in .*: all files there are masks"):
        open_source(pair / "masks", masks=pair / "masks" / "more")


def test_the_cache_is_used_and_half_written_masks_are_not(pair, cache, monkeypatch):
    first = open_source(pair)
    folder = cache / "masks"
    (array,) = folder.glob("*.npy")
    (notes,) = folder.glob("*.json")
    expected = first[1].target
    read = []
    monkeypatch.setattr(mask_store, "read_mask", lambda *a: read.append(a[1]) or read_mask(*a))
    assert torch.equal(open_source(pair)[1].target, expected)
    assert not read
    # killed before the notes were written, while the array was, and with a part of it on the disk
    for damage in (
        notes.unlink,
        lambda: (folder / f".{array.name}.x1").write_bytes(b"half") and array.unlink(),
        lambda: array.write_bytes(array.read_bytes()[:200]),
        lambda: notes.write_text(notes.read_text()[:20]),
    ):
        damage()
        read.clear()
        assert torch.equal(open_source(pair)[1].target, expected)
        assert len(read) == 4
        assert not list(folder.glob(".*"))
    assert json.loads(notes.read_text())["bad"] == {}


def test_other_masks_are_another_source(pair):
    before = open_source(pair)
    save(pair / "masks" / "0.png", 255 - box())
    after = open_source(pair)
    assert before.fingerprint != after.fingerprint
    assert not torch.equal(before[0].target, after[0].target)
    assert open_source(pair, labels="none").fingerprint == open_source(pair, labels="none").fingerprint


def test_the_same_elsewhere_is_the_same(pair, tmp_path_factory):
    other = tmp_path_factory.mktemp("moved") / "data"
    shutil.copytree(pair, other)
    assert open_source(other).fingerprint == open_source(pair).fingerprint


def test_pickles(pair):
    source = open_source(pair, size=200)
    data = pickle.dumps(source)
    assert len(data) < 8_000  # one mask has 40,000 bytes
    again = pickle.loads(data)
    assert torch.equal(again[3].target, source[3].target)
    assert again.understood == source.understood
    assert again.read_mask(3).tolist() == source.read_mask(3).tolist()


def test_subsets_and_hidden_labels(pair):
    source = open_source(pair)
    part = source.subset(np.array([4, 2]))
    assert masked_of(part) is source
    assert masked_of(part.subset(np.array([1]))) is source
    assert part[1].index == 2
    assert part[1].target is not None
    assert part.labels.tolist() == [-1, 0]
    hidden = source.hiding(np.array([1]))
    assert hidden[0].target is None
    assert hidden[0].label == -1
    assert hidden[1].target is not None
    assert source[0].target is not None
    assert copy.copy(source)[0].target is not None
    with pytest.raises(UsageError, match="the data are no images with masks: put masks/ beside images/"):
        masked_of(open_source(pair, labels="none"))


def test_turns_move_image_and_mask_alike(pair):
    source = open_source(pair, size=32)
    sample = source[0]
    still = FORM.cut(sample, np.random.default_rng(0), turn=False)
    assert torch.allclose(still.data, (sample.data / 255 - 0.5) / 0.25, atol=1e-5)
    assert torch.equal(still.target, sample.target)
    seen = {}
    for seed in range(60):
        drawn = int(np.random.default_rng(seed).integers(8))
        cut = FORM.cut(sample, np.random.default_rng(seed), turn=True)
        image, mask = (np.rot90(x.numpy(), drawn % 4, (-2, -1)) for x in (still.data, still.target))
        if drawn >= 4:
            image, mask = np.flip(image, -1), np.flip(mask, -1)
        assert cut.data.numpy().tolist() == image.tolist()
        assert cut.target.numpy().tolist() == mask.tolist()
        seen[drawn] = cut.data.numpy().tobytes()
    assert len(seen) == len(set(seen.values())) == 8


def test_cuts_of_unlabelled_samples(pair):
    source = open_source(pair)
    sample = source[0]
    sample.label = -1  # as the loader hides labels
    assert FORM.cut(sample, np.random.default_rng(0), turn=True).target is None
    cut = FORM.cut(source[5], np.random.default_rng(0), turn=True)
    assert cut.target is None
    assert cut.label == -1
    assert cut.index == 5
    assert cut.name == "images/5.png"
    assert cut.data.shape == (3, 32, 32)
    assert cut.data.dtype == torch.float32


def test_a_smaller_cut_is_antialiased(pair):
    sample = open_source(pair, size=64)[0]
    sample.data[:] = torch.tensor([0, 255], dtype=torch.uint8).repeat(32)  # stripes of one pixel
    cut = FORM.cut(sample, np.random.default_rng(0), turn=False)
    assert cut.data[:, :, 2:-2].abs().max() < 0.02


def test_sizes_that_an_encoder_cannot_see():
    encoder = build_encoder("tacit/unet2d", channels=3, size=128)
    assert encoder.card.form.size == 128
    assert isinstance(encoder.card.form, ImageForm)
    encoder.card.form.fits(encoder.divisor)
    maps = encoder.eval().forward_pyramid(torch.zeros(1, 3, 128, 128))
    assert maps[-1].shape == (1, 16, 128, 128)
    for size, fitting in ((100, 96), (5, 16), (250, 256)):
        with pytest.raises(UsageError, match=f"multiples of 16, not {size}: pass --size {fitting}"):
            ImageForm.make(3, size=size).fits(encoder.divisor)


def test_real_nuclei(real_data, tmp_path):
    archive = np.load(real_data / "dsb2018_nuclei" / "dsb2018_nuclei.npz")
    images, masks = archive["image"][:20], np.unpackbits(archive["mask"][:20], axis=-1)
    for i in range(20):
        save(tmp_path / "images" / f"{i:02}.png", images[i])
        if i < 15:
            save(tmp_path / "masks" / f"{i:02}.png", masks[i] * np.uint8(255))
    source = open_source(tmp_path)
    assert source.spec.shape == (1, 128, 128)
    assert source.labelled.tolist() == list(range(15))
    assert (source.batch(range(20)).data[:, 0].numpy() == images).all()
    for i in range(15):
        assert (source[i].target.numpy() == masks[i]).all()
        assert (source.read_mask(i) == masks[i]).all()


def test_a_mask_fits_its_image_in_either_spelling_of_an_accent(tmp_path):
    one, two = "caf\u00e9", "cafe\u0301"
    for i, (image, mask) in enumerate(((one, two), (f"{two}2", f"{one}2_mask"))):
        picture(tmp_path / "images" / f"{image}.png", seed=i)
        save(tmp_path / "masks" / f"{mask}.png", box())
    source = open_source(tmp_path)
    assert source.spec.target == "mask"
    assert len(source.labelled) == 2
    shutil.move(tmp_path / "masks", tmp_path.parent / "apart")
    assert len(open_source(tmp_path, masks=tmp_path.parent / "apart").labelled) == 2
    shutil.rmtree(tmp_path.parent / "apart")
