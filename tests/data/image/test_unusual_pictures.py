"""Kinds of pixels that are rare: what becomes of each, by hand, or the line that says why nothing does."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from tiffs import packed_12, tiff

from tacit.data.image.decoding import Form, decode, peak, read_header
from tacit.data.image.knees import read_radiograph
from tacit.errors import BadFile

# 65535 / 255 = 257: these become 0, 1, 128 and 255
VALUES = np.array([[0, 257], [32_896, 65_535]], np.uint16).repeat(4, 0).repeat(4, 1)
GREY = Form(1, 8, 65_535)


def corners(data, name="a.tif", form=GREY):
    pixels = decode(name, data, form).pixels
    return (
        pixels[:, 0, 0].tolist()
        + pixels[:, 0, 7].tolist()
        + pixels[:, 7, 0].tolist()
        + pixels[:, 7, 7].tolist()
    )


def saved(image, kind="PNG", **words):
    file = io.BytesIO()
    image.save(file, kind, **words)
    return file.getvalue()


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("compress", [None, zlib.compress])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_sixteen_bits_of_either_byte_order_and_white(order, compress, big):
    black = tiff(VALUES, order, compress=compress, big=big)
    white = tiff(VALUES, order, white=0, compress=compress, big=big)
    assert corners(black) == [0, 1, 128, 255]
    assert corners(white) == [255, 254, 127, 0]
    assert peak("a.tif", black) == 65_535
    assert peak("a.tif", tiff(VALUES + 7, order, white=0)) == 65_535 - 6  # the smallest, of 65_535 + 7, is 6
    for data in (black, white):
        assert read_header("a.tif", io.BytesIO(data)) == (8, 8, 1, True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_eight_bits_whose_white_is_zero(order):
    values = (VALUES // 257).astype(np.uint8)
    assert corners(tiff(values, order)) == [0, 1, 128, 255]
    assert corners(tiff(values, order, white=0)) == [255, 254, 127, 0]


def test_a_radiograph_whose_white_is_zero_is_not_a_negative(tmp_path):
    for white in (0, 1):
        values = VALUES if white else 65_535 - VALUES
        (tmp_path / f"{white}.tif").write_bytes(tiff(values, white=white))
    images = [read_radiograph(tmp_path / f"{white}.tif").image for white in (0, 1)]
    np.testing.assert_array_equal(*images)
    assert images[0][7, 7] > images[0][0, 0]


def test_twelve_bits():
    values = np.array([[0, 16], [2048, 4095]], np.uint16).repeat(4, 0).repeat(4, 1)
    data = tiff(packed_12(values), bits=12, width=8)
    assert corners(data, form=Form(1, 8, 4095)) == [0, 1, 128, 255]  # 16 x 255 / 4095 = 0.996
    assert peak("a.tif", data) == 4095


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_and_longer_numbers_are_read_where_they_fit(order):
    half = (VALUES // 2).astype(np.int16)
    assert corners(tiff(half, order, format_=2)) == [0, 0, 64, 127]
    assert corners(tiff(VALUES.astype(np.int32), order, format_=2)) == [0, 1, 128, 255]
    with pytest.raises(BadFile, match="signed or 32-bit pixels from -5 to 32762: only 0 to 65535 is read"):
        corners(tiff(half - np.int16(5), order, format_=2))


HALVES = VALUES // 2
READ = "which is not read: save it with 8 or 16 bits"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(HALVES.astype(np.float32), format_=3), "floating-point pixels, whose range is not known"),
        (tiff(HALVES.astype(np.float16), format_=3), f"a TIFF with floating-point pixels of 16 bits, {READ}"),
        (tiff(HALVES.astype(np.float64), format_=3), f"a TIFF with floating-point pixels of 64 bits, {READ}"),
        (tiff(HALVES.astype(np.uint32), white=0), f"a TIFF with pixels of 32 bits, white is 0, {READ}"),
        (tiff(HALVES.astype(np.uint32), ">"), f"a TIFF with pixels of 32 bits, {READ}"),
        (tiff(packed_12(HALVES // 9), ">", bits=12, width=8), f"a TIFF with pixels of 12 bits, {READ}"),
        (saved(Image.new("CMYK", (8, 8)), "TIFF"), "CMYK colours, which only its print profile"),
        (saved(Image.new("LAB", (8, 8)), "TIFF"), "colours of the kind LAB: convert it to RGB"),
        (tiff(VALUES, ">", big=True), "a big-endian BigTIFF, which is not read: save it as a plain TIFF"),
        (tiff(VALUES)[:20], "damaged: its header cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_is_not_read_is_named_for_what_it_is(data, reason):
    with pytest.raises(BadFile) as caught:
        corners(data)
    assert caught.value.reason.startswith(reason)


def test_one_bit():
    bits = np.array([[0, 1], [1, 0]], bool).repeat(4, 0).repeat(4, 1)
    for kind in ("PNG", "TIFF"):
        assert corners(saved(Image.fromarray(bits), kind)) == [0, 255, 255, 0]


def test_a_palette_with_transparency_is_laid_over_white():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8).repeat(4, 0).repeat(4, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    rgb = Form(3, 8, 255)
    assert corners(saved(image), form=rgb) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 40, 50, 60]
    over = corners(saved(image, transparency=1), form=rgb)
    assert over == [10, 20, 30, 255, 255, 255, 70, 80, 90, 255, 255, 255]
    gif = corners(saved(image, "GIF", transparency=1), "a.gif", form=rgb)
    assert gif == over
    parts = corners(saved(image, transparency=bytes([255, 0, 51])), form=rgb)
    assert parts[6:9] == [218, 220, 222]  # a fifth of (70, 80, 90) over white


def test_grey_with_transparency_is_laid_over_white():
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[..., 0] = 100
    pixels[:, :4, 1], pixels[:, 4:, 1] = 51, 255
    assert corners(saved(Image.fromarray(pixels, "LA"))) == [224, 100, 224, 100]  # 0.2 x 100 + 0.8 x 255


def test_colour_profiles_are_not_applied():
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile = saved(image, icc_profile=profile)
    assert corners(with_profile, "a.png", Form(3, 8, 255)) == [200, 100, 50] * 4


@pytest.mark.parametrize("kind", [">u2", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_either_order(kind, order):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    data = array(np.asarray(values, dtype=kind, order=order))
    expected = decode("a.npy", array(values), GREY).pixels
    np.testing.assert_array_equal(decode("a.npy", data, GREY).pixels, expected)
    assert peak("a.npy", data) == 63_000
    assert expected[0, 7, 7] == 245  # 63000 / 257


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.int64, bool])
def test_arrays_of_other_numbers_are_refused(kind):
    with pytest.raises(BadFile, match=r"dtype \w+: only uint8 and uint16 are read"):
        decode("a.npy", array(VALUES.astype(kind)), GREY)
