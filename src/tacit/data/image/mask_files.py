"""One mask from its file, and what the values of all masks mean.

A mask is one number per pixel: 1-bit, 8-bit or 16-bit grey with values up to 255, grey that was saved as
RGB, or a palette, whose indices are the classes, whatever their colours. Files without a single right
reading are refused: colours, JPEG (which blurs values) unless two values are left, several pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tacit.data.image.decoding import open_image
from tacit.data.reading import damage_named, read_bytes
from tacit.errors import BadFile, UsageError

VALUES = 256
_SAVE = "save one class number per pixel, as grey or palette PNG"
_FEW = 32  # distinct values, or colours, of a mask without smooth edges
_CALM = 0.85  # of neighbouring pixels of a mask are equal, at least
_MASS = 0.8  # of the pixels have one of two values, where only edges have others
_UNDERSTOOD = {"1", "L", "P", "I", "LA", "PA", "RGB", "RGBA", "RGBX"}


class Seen(NamedTuple):
    """A value of masks: of how many pixels, and in which file it is first."""

    pixels: int
    first: str


def read_mask(path: Path, name: str, size: tuple[int, int] | None = None) -> tuple[np.ndarray, bytes]:
    """The values of a mask, (H, W) uint8, and the file's bytes.

    size: the height and width that it must have.

    Raises:
        BadFile: the file is damaged, no mask, or of another size.
    """
    data = read_bytes(path, name)
    with damage_named(name):
        if name.lower().endswith(".npy"):
            array = np.load(BytesIO(data), allow_pickle=False)
            if array.ndim != 2 or array.dtype.kind not in "bui":
                raise BadFile(name, f"{array.dtype} of shape {array.shape}: whole numbers (H, W) are read")
            _check_size(name, array.shape, size)
            return _checked(name, array), data
        with open_image(name, BytesIO(data)) as image:
            _check_size(name, (image.height, image.width), size)
            return _checked(name, _numbers(name, image)), data


def _check_size(name: str, found: Sequence[int], wanted: tuple[int, int] | None) -> None:
    if wanted is None or tuple(found) == wanted:
        return
    turned = ", upright as its EXIF data say" if tuple(found[::-1]) == wanted else ""
    height, width = wanted
    raise BadFile(name, f"{found[1]} x {found[0]} px, and the image is {width} x {height} px{turned}")


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= VALUES:
        beyond = low if low < 0 else high
        raise BadFile(name, f"it holds the value {beyond}, and classes are numbers from 0 to {VALUES - 1}")
    return values.astype(np.uint8)


def _numbers(name: str, image: Image.Image) -> np.ndarray:
    """(H, W) whole numbers."""
    mode, lossy = image.mode, image.format in ("JPEG", "MPO")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and not lossy:
        raise BadFile(name, f"{frames} frames: save the mask as a file of its own")
    if mode == "F":
        raise BadFile(name, f"floating-point pixels: {_SAVE}")
    if mode not in _UNDERSTOOD and not mode.startswith("I;16"):
        raise BadFile(name, f"colours of the kind {mode}: {_SAVE}")
    if len(image.getbands()) > 1 and "16" in str(getattr(image, "tile", "")):
        raise BadFile(name, f"16 bits a channel, of which only 8 are read: {_SAVE}")
    pixels = np.asarray(image)
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
        with damage_named(path.name), open(path, "rb") as file:
            if path.suffix.lower() == ".npy":
                pixels = np.load(file, allow_pickle=False)
            else:
                with open_image(path.name, file) as image:
                    pixels = np.asarray(image)
            if pixels.ndim == 3:
                pixels = _packed(pixels) if pixels.shape[2] >= 3 else pixels[..., 0]
            calm = np.mean(pixels[:, 1:] == pixels[:, :-1])
            return bool(calm >= _CALM) or len(np.unique(pixels)) <= _FEW
    except BadFile:
        return False


def class_values(seen: Mapping[int, Seen]) -> tuple[int, ...]:
    """The value in the files of each class, in order: (0, 1, 2) or, of binary masks, such as (0, 255).

    Two values of which one is 0 are a binary mask if the other is 1, or 32 or more: less could be a class
    among others, and a second folder of the same data would have other numbers. Otherwise values are the
    classes' own numbers, with few of them left out.

    Raises:
        UsageError: values that are no class numbers: grey levels, 255 for void, smooth edges.
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
