"""One mask from its file, and what the values of all masks mean.

A mask is one number per pixel: 1-bit, 8-bit or 16-bit grey with values up to 255, grey that was saved as
RGB, or a palette, whose indices are the classes, whatever their colours. Files without a single right
reading are refused: colours, JPEG (which blurs values) unless two values are left, several pages.

A mask lies on its image as it is seen, upright. If it has an EXIF orientation of its own, it is turned by it,
as images are. If it has none and its image is turned, it was drawn either on the stored pixels or on the
upright picture: its sides tell which, and where they cannot (squares, half turns, mirrored) it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tacit.data.image.decoding import TURNED, frames_of, open_image, orientation_tag, upright
from tacit.data.limits import MASK_RATIO, ROOM, check_unpacked
from tacit.data.numpy_files import load_array
from tacit.data.reading import damage_named, read_bytes
from tacit.errors import BadFile, UsageError

VALUES = 256
_SAVE = "save one class number per pixel, as grey or palette PNG"
LOOKED_AT = 16
"""Masks that are opened to see whether they look like masks."""
_FEW = 32  # distinct values, or colours, of a mask without smooth edges
_MANY = 64  # distinct values; pictures taken for masks have more, and few sets of masks do
_CALM = 0.85  # of neighbouring pixels of a mask are equal, at least
_MASS = 0.8  # of the pixels have one of two values, where only edges have others
_LOSSY = ("JPEG", "MPO")
_WORKING = 16  # bytes a pixel that reading a mask takes, of 32-bit numbers and their copies
_UNDERSTOOD = {"1", "L", "P", "I", "LA", "PA", "RGB", "RGBA", "RGBX"}


class Seen(NamedTuple):
    """A value of masks: of how many pixels, and in which file it is first."""

    pixels: int
    first: str


def read_mask(path: Path, name: str, size: tuple[int, int], orientation: int) -> tuple[np.ndarray, bytes]:
    """The values of a mask, (H, W) uint8, upright, and the file's bytes.

    size: the height and width that it must have: those of its image, upright. orientation: the EXIF
    orientation that the image is turned by, 1 to 8.

    Raises:
        BadFile: the file is damaged, no mask, of another size, or may be turned as its image is, or not.
    """
    data = read_bytes(path, name)
    with damage_named(name):
        if name.lower().endswith(".npy"):
            array = load_array(name, data)
            if array.ndim != 2 or array.dtype.kind not in "bui":
                raise BadFile(name, f"{array.dtype} of shape {array.shape}: whole numbers (H, W) are read")
            turn = _turn(name, array.shape, None, size, orientation)
            return upright(_checked(name, array), turn), data
        with open_image(name, BytesIO(data)) as image:
            _check_kind(name, image, len(data))
            with ROOM.taken(name, _WORKING * image.width * image.height):
                tagged = orientation_tag(image) is not None
                pixels = np.asarray(image)
                left = orientation_tag(image) or 1  # Pillow has turned a TIFF already
                turn = _turn(name, pixels.shape[:2], left if tagged else None, size, orientation)
                lossy = image.format in _LOSSY
                return upright(_checked(name, _numbers(name, pixels, lossy=lossy)), turn), data


def _turn(name: str, found: tuple[int, ...], own: int | None, size: tuple[int, int], orientation: int) -> int:
    """The EXIF orientation by which a mask whose pixels have these sides lies on its image.

    own: the mask's, if it says one. size, orientation: as for `read_mask`.
    """
    if own is not None:
        _check_size(name, found[::-1] if own in TURNED else found, size, orientation)
        return own
    told = orientation in TURNED and size[0] != size[1]
    if told and found == size[::-1]:
        return orientation
    _check_size(name, found, size, orientation)
    if orientation > 1 and not told:
        raise BadFile(
            name,
            f"the image is turned by its EXIF data (orientation {orientation}) and its mask does not say "
            "whether it is: save the picture upright (exiftran, ImageOps.exif_transpose) with its mask on "
            "top of it",
        )
    return 1


def _check_size(name: str, found: tuple[int, ...], wanted: tuple[int, int], orientation: int) -> None:
    if found != wanted:
        height, width = wanted
        turned = ", upright as its EXIF data say" if orientation in TURNED else ""
        raise BadFile(name, f"{found[1]} x {found[0]} px, and the image is {width} x {height} px{turned}")


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= VALUES:
        beyond = low if low < 0 else high
        raise BadFile(name, f"it holds the value {beyond}, and classes are numbers from 0 to {VALUES - 1}")
    return values.astype(np.uint8)


def _check_kind(name: str, image: Image.Image, held: int) -> None:
    """Refuse what the header of an image that is not decoded yet tells to be no mask.

    held: bytes of the file.
    """
    mode, frames = image.mode, frames_of(image, held)
    _check_declared(name, image, held)
    if frames != "1" and image.format not in _LOSSY:
        raise BadFile(name, f"{frames} frames: save the mask as a file of its own")
    if mode == "F":
        raise BadFile(name, f"floating-point pixels: {_SAVE}")
    if mode not in _UNDERSTOOD and not mode.startswith("I;16"):
        raise BadFile(name, f"colours of the kind {mode}: {_SAVE}")
    if len(image.getbands()) > 1 and "16" in str(getattr(image, "tile", "")):
        raise BadFile(name, f"16 bits a channel, of which only 8 are read: {_SAVE}")


def _check_declared(name: str, image: Image.Image, held: int) -> None:
    check_unpacked(name, image.width * image.height * len(image.getbands()), held, MASK_RATIO)


def _numbers(name: str, pixels: np.ndarray, *, lossy: bool) -> np.ndarray:
    """(H, W) whole numbers, of (H, W) or (H, W, 2 to 4) pixels."""
    values = pixels if pixels.ndim == 2 else _one_channel(name, pixels)
    if lossy and (count := len(np.unique(values))) > 2:
        raise BadFile(name, f"JPEG, which has blurred its values to {count} different ones: {_SAVE}")
    return values


def _one_channel(name: str, pixels: np.ndarray) -> np.ndarray:
    """The channel of grey that was saved with several; (H, W, 2 to 4) uint8."""
    colours = 1 if pixels.shape[2] == 2 else 3
    grey, alpha = pixels[..., 0], pixels[..., colours:]
    if (pixels[..., :colours] != grey[..., None]).any():
        count = len(np.unique(_packed(pixels)))
        blurred = "; so many come from smooth edges (JPEG, or resized with smoothing)" if count > _FEW else ""
        raise BadFile(name, f"it has {count} colours, and masks have none{blurred}: {_SAVE}")
    if alpha.size and grey.min() == grey.max() and alpha.min() != alpha.max():
        raise BadFile(name, f"its transparency is the mask: {_SAVE}")
    return grey


def _packed(pixels: np.ndarray) -> np.ndarray:
    """(H, W) one number per colour, of (H, W, 3 or more) uint8."""
    red, green, blue = (pixels[..., c].astype(np.uint32) for c in range(3))
    return red << 16 | green << 8 | blue


def looks_like_masks(paths: Sequence[Path]) -> bool:
    """Whether most of these images have few values, or areas of one value as masks have."""
    looks = [_looks_like_mask(path) for path in paths]
    return 2 * sum(looks) > len(looks)


def _looks_like_mask(path: Path) -> bool:
    try:
        data = read_bytes(path, path.name)
        with damage_named(path.name):
            if path.suffix.lower() == ".npy":
                pixels = load_array(path.name, data)
            else:
                with open_image(path.name, BytesIO(data)) as image:
                    _check_declared(path.name, image, len(data))
                    pixels = np.asarray(image)
            if pixels.ndim == 3:
                pixels = _packed(pixels) if pixels.shape[2] >= 3 else pixels[..., 0]
            calm = np.mean(pixels[:, 1:] == pixels[:, :-1])
            return bool(calm >= _CALM) or len(np.unique(pixels)) <= _FEW
    except BadFile:
        return False


def class_values(seen: Mapping[int, Seen], paths: Sequence[Path]) -> tuple[int, ...]:
    """The value in the files of each class, in order: (0, 1, 2) or, of binary masks, such as (0, 255).

    paths: of some masks, which are looked at if there are very many values.

    Two values of which one is 0 are a binary mask if the other is 1, or 32 or more: less could be a class
    among others, and a second folder of the same data would have other numbers. Otherwise values are the
    classes' own numbers, with few of them left out.

    Raises:
        UsageError: values that are no class numbers: grey levels, 255 for void, smooth edges, pictures.
    """
    values = sorted(seen)
    objects = [value for value in values if value]
    if not objects:
        return (0,)
    if len(objects) == 1 and objects[0] >= _FEW:
        return 0, objects[0]
    highest = values[-1]
    rest = values[:-1]
    if len(values) > _FEW and (highest == VALUES - 1 or _two_of_all(seen)):
        raise UsageError(
            f"the masks hold {len(values)} different values up to {highest} ({seen[highest].first}), which "
            f"come from smooth edges (JPEG, or resized with smoothing): {_SAVE}, and resize with nearest"
        )
    if len(values) > _MANY and not looks_like_masks(paths):
        raise UsageError(
            f"the masks hold {len(values)} different values, as grey pictures do: classes are numbered 0, 1, "
            "2, ...; name the folder of the masks"
        )
    if highest == VALUES - 1 and _are_classes(rest):
        raise UsageError(
            f"the masks hold 255 ({seen[255].first}) beside {_listed(rest)}: pixels of no class (void) "
            "are not supported yet; set them to 0, or to a class of their own"
        )
    if not _are_classes(values):
        odd = seen[highest].first
        raise UsageError(
            f"the masks hold the values {_listed(values)} ({highest} in {odd}): classes are numbered 0, 1, "
            "2, ...; save them so"
        )
    return tuple(range(highest + 1))


def _are_classes(values: Sequence[int]) -> bool:
    """Whether at least half of the numbers up to the largest are there."""
    return len(values) >= (values[-1] + 1) / 2


def _two_of_all(seen: Mapping[int, Seen]) -> bool:
    """Whether the lowest and the highest value have nearly all pixels."""
    total = sum(each.pixels for each in seen.values())
    return seen[min(seen)].pixels + seen[max(seen)].pixels >= _MASS * total


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"{shown}, ... ({len(values)} values)" if len(values) > 8 else shown


def class_names(count: int) -> tuple[str, ...]:
    """The first is "background", and the others are their numbers."""
    return ("background", *map(str, range(1, count)))
