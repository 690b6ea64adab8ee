"""From one image file to the (C, S, S) uint8 pixels that the store keeps.

The rules, each our choice:

- Every image is made upright by its EXIF orientation, then resized to S x S without regard to its
  aspect (which is kept as a number), antialiased bicubic. JPEGs that are much larger are decoded at
  1/2, 1/4 or 1/8 of their size, never below 2 S.
- Transparency is laid over white, because transparent pictures are mostly drawings for a page;
  with four channels it is kept.
- More than 8 bits of grey are scaled linearly with one white for the whole source, so that absolute
  intensities stay comparable between images; what is brighter than white is clipped. Colour with 16
  bits a channel is read as its upper 8 bits (all that Pillow offers).
- What has no single right reading is a bad file: CMYK, several frames, floating-point pixels.
"""

from __future__ import annotations

import logging
import struct
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tacit.data.reading import damage_named
from tacit.errors import BadFile

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP")
SMALLEST_SIDE = 4
LONGEST_SIDE = 20_000
FULL_WHITE = 65_535
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*", b"MM\0*", b"RIFF", b"\x93NUMPY")
_GREY = {"1", "L", "LA", "La"}
_READ = _GREY | {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"}
TURNED = range(5, 9)  # EXIF orientations that swap height and width
_TEXT = (b"tEXt", b"zTXt", b"iTXt")  # chunks of PNG, and those texts in them that can hold an orientation
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as Pillow's convert("L")

# Pillow logs what it then raises; without a handler Python would print it to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Header(NamedTuple):
    """What is known of an image without decoding it. `deep`: more than 8 bits a channel."""

    height: int
    width: int
    channels: int
    deep: bool


class Form(NamedTuple):
    """What every image of a store is brought to.

    white: the value of a deep image that becomes 255. brightest: the largest value
    seen in one; 0 without any.
    """

    channels: int
    size: int
    white: int
    brightest: int = 0


class Decoded(NamedTuple):
    """One image of the store: (C, S, S) uint8, its true (height, width), a digest of the file."""

    pixels: np.ndarray
    true_size: tuple[int, int]
    digest: bytes


def read_header(name: str, file: IO[bytes]) -> Header:
    """Size and kind of an image or a `.npy` array, without decoding its pixels.

    Raises:
        BadFile: what the header already tells to be unusable.
    """
    with damage_named(name):
        if name.lower().endswith(".npy"):
            return array_header(name, *_array_shape(file))
        with open_image(name, file) as image:
            return _header(name, image)


def decode(name: str, data: bytes, form: Form) -> Decoded:
    """Decode an image file or a `.npy` array of this name.

    Raises:
        BadFile: the file is damaged, no image, or has no single right reading.
    """
    digest = blake2b(data, digest_size=16).digest()
    with damage_named(name):
        if name.lower().endswith(".npy"):
            array_header(name, *_array_shape(BytesIO(data)))
            array = np.load(BytesIO(data), allow_pickle=False)
            return Decoded(fit_array(name, array, form), array.shape[:2], digest)
        with open_image(name, BytesIO(data)) as image:
            header = _header(name, image)
            image.draft(image.mode, (2 * form.size, 2 * form.size))
            image.load()
            upright = _upright(image)
            drafted = image.format in ("JPEG", "MPO")
            true_size = header[:2] if drafted else (upright.height, upright.width)
            if header.deep:
                return Decoded(fit_array(name, _deep_values(name, upright), form), true_size, digest)
            return Decoded(_fit_image(name, upright, form), true_size, digest)


def picture_header(name: str, image: Image.Image) -> Header:
    """Size and kind of a picture that is open already.

    Raises:
        BadFile: it has no single right reading.
    """
    return _header(name, image)


def fit_picture(name: str, image: Image.Image, form: Form) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture that is open already, in the form of the store, and its height and width.

    Raises:
        BadFile: it has no single right reading.
    """
    header, upright = _header(name, image), _upright(image)
    size = upright.height, upright.width
    if header.deep:
        return fit_array(name, _deep_values(name, upright), form), size
    return _fit_image(name, upright, form), size


def peak(name: str, data: bytes) -> int:
    """The largest value of an image with more than 8 bits; 0 for other images and unusable ones."""
    try:
        with damage_named(name):
            if name.lower().endswith(".npy"):
                array = np.load(BytesIO(data), allow_pickle=False)
                return int(array.max()) if array.dtype.itemsize == 2 else 0
            with open_image(name, BytesIO(data)) as image:
                return int(_deep_values(name, image).max()) if _header(name, image).deep else 0
    except BadFile:
        return 0


def white_above(peak: int) -> int:
    """The white of a source whose largest value is `peak`: 255, 511, ... 65535, whichever is next."""
    return max(2 ** int(peak).bit_length() - 1, 255)


def array_header(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Header:
    """The header of an (H, W) or (H, W, C) array.

    Raises:
        BadFile: another shape or dtype.
    """
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise BadFile(name, f"dtype {dtype}: only uint8 and uint16 are read")
    if len(shape) not in (2, 3):
        raise BadFile(name, f"shape {shape}: (height, width) or (height, width, channels) is read")
    height, width, channels = (*shape, 1)[:3]
    if len(shape) == 3 and height != width == channels:
        raise BadFile(name, f"shape {shape}: the channels must come last")
    _check_sides(name, height, width)
    return Header(height, width, channels, dtype.itemsize == 2)


def fit_array(name: str, array: np.ndarray, form: Form) -> np.ndarray:
    """Bring an (H, W) or (H, W, C) uint8 or uint16 array to `form`, (C, S, S) uint8.

    Raises:
        BadFile: its number of channels does not go with that of the form.
    """
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    if planes.dtype != np.uint8:
        planes = np.minimum(planes, form.white).astype(np.float32) * np.float32(255 / form.white)
    if len(planes) == 3 and form.channels == 1:
        planes = np.einsum("chw,c->hw", planes, _LUMINANCE)[None]
    if planes.shape[1:] != (form.size, form.size):
        side = (form.size, form.size)
        resized = (Image.fromarray(p).resize(side, Image.Resampling.BICUBIC) for p in planes)
        planes = np.stack([np.asarray(image) for image in resized])
    if planes.dtype != np.uint8:
        planes = planes.round().clip(0, 255).astype(np.uint8)
    return _fit_channels(name, planes, form.channels)


def open_image(name: str, file: IO[bytes]) -> Image.Image:
    """An image file whose header is read and whose pixels are not yet.

    Raises:
        BadFile: the file is no image, or its header is damaged.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(8)
    if not start:
        raise BadFile(name, "empty file (0 bytes)")
    if start.startswith(_MAGIC):
        raise BadFile(name, "damaged: its header cannot be read")
    raise BadFile(name, f"not an image: it starts with {start!r}")


def _header(name: str, image: Image.Image) -> Header:
    width, height = image.size
    _check_sides(name, height, width)
    if image.mode == "CMYK":
        raise BadFile(name, "CMYK colours, which only its print profile can turn into RGB: convert it to RGB")
    if image.mode == "F":
        raise BadFile(name, "floating-point pixels, whose range is not known: save it with 8 or 16 bits")
    deep = image.mode.startswith("I")
    if not deep and image.mode not in _READ:
        raise BadFile(name, f"colours of the kind {image.mode}: convert it to RGB")
    # a camera's MPO is a JPEG with a preview behind the picture
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise BadFile(name, f"{frames} frames: save the one that is meant as a file of its own")
    if orientation_tag(image) in TURNED:
        height, width = width, height
    return Header(height, width, 1 if deep or image.mode in _GREY else 3, deep)


def _check_sides(name: str, height: int, width: int) -> None:
    if min(height, width) < SMALLEST_SIDE:
        raise BadFile(name, f"{width} x {height} px: smaller than {SMALLEST_SIDE} px on a side")
    if max(height, width) > LONGEST_SIDE:
        raise BadFile(name, f"{width} x {height} px: longer than {LONGEST_SIDE} px on a side")


def orientation_tag(image: Image.Image) -> int | None:
    """The EXIF orientation, 1 to 8; None where the image says none, or is a TIFF that Pillow has decoded."""
    try:
        found = int(image.getexif()[0x0112])
    except Exception:  # pixels can be good where the EXIF data are not
        return None
    return found if 1 <= found <= 8 else None


def orientation_of(path: Path) -> int:
    """The EXIF orientation that the image in this file is turned by, from its header; 1 where it says none.

    Raises:
        BadFile: the file is no image.
    """
    if path.suffix.lower() == ".npy":
        return 1
    with damage_named(path.name), open(path, "rb") as file, open_image(path.name, file) as image:
        if image.format == "PNG" and not _may_say_orientation(file):
            return 1  # else Pillow would decode it, because the tag may lie behind the pixels
        return orientation_tag(image) or 1


def _may_say_orientation(png: IO[bytes]) -> bool:
    """Whether a PNG has a chunk that an orientation can be in; its position is as before."""
    before, at = png.tell(), 8
    try:
        while True:
            png.seek(at)
            if len(head := png.read(8)) < 8:
                return False
            size, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf" or (kind in _TEXT and png.read(22).startswith(_ORIENTING)):
                return True
            at += size + 12
    finally:
        png.seek(before)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) pixels as they are stored, turned as this EXIF orientation says."""
    if orientation in TURNED:
        pixels = pixels.T
    rows, columns = (-1 if orientation in flipped else 1 for flipped in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def _deep_values(name: str, image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > FULL_WHITE:
        raise BadFile(name, f"32-bit pixels from {low} to {high}: only 0 to {FULL_WHITE} is read")
    return values.astype(np.uint16)


def _fit_image(name: str, image: Image.Image, form: Form) -> np.ndarray:
    if form.channels == 4:
        image = _as(image, "RGBA")
    elif image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(_as(image, "RGBA"))
        image = page.convert("L" if form.channels == 1 else "RGB")
    else:
        image = _as(image, "L" if form.channels == 1 or image.mode in _GREY else "RGB")
    if image.size != (form.size, form.size):
        image = image.resize((form.size, form.size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    return _fit_channels(name, planes, form.channels)


def _as(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _fit_channels(name: str, planes: np.ndarray, channels: int) -> np.ndarray:
    """Grey is repeated, an opaque fourth channel added; everything else must agree already."""
    if len(planes) == 1 and channels in (3, 4):
        planes = np.repeat(planes, 3, axis=0)
    if len(planes) == 3 and channels == 4:
        planes = np.concatenate([planes, np.full_like(planes[:1], 255)])
    if len(planes) != channels:
        raise BadFile(name, f"{len(planes)} channels where {channels} are wanted")
    return np.ascontiguousarray(planes)


def _array_shape(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a `.npy` file, before its pixels are read."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
