"""Images that lie in memory: arrays, tensors, lists of paths or pictures, data sets of other libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tacit.data.frame import cells_of, is_frame, label_column, paths_of
from tacit.data.image.arrays import whole_numbers
from tacit.data.image.build import store_images
from tacit.data.image.decoding import (
    Decoded,
    Form,
    Header,
    array_header,
    decode,
    fit_array,
    fit_picture,
    peak,
    picture_header,
    read_header,
)
from tacit.data.image.originals import Originals, evenly
from tacit.data.image.store import StoredImages
from tacit.data.memory import Held, class_numbers
from tacit.data.names import Names
from tacit.data.options import Options
from tacit.data.reading import damage_named, open_file, read_bytes
from tacit.errors import BadFile, UsageError

_CHANNELS = (1, 3, 4)
_ROUNDED = "values from 0 to 1 were taken for shares of white, and rounded to 8 bits"


class HeldImages(Held):
    """Images in memory, whatever they came as."""

    modality: ClassVar[str] = "image"

    def __init__(
        self,
        originals: Originals,
        what: str,
        labels: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.originals, self._what = originals, what
        self.labels, self.classes, self.notes = labels, classes, notes

    def __len__(self) -> int:
        return len(self.originals.names)

    def described(self) -> str:
        """Such as "array (5000, 28, 28)"."""
        return self._what


def open_held(held: HeldImages, options: Options) -> StoredImages:
    """The images in the store, as those of files are, with their labels.

    Raises:
        BadFile, TacitError: as `store_images`.
    """
    source = store_images(held.originals, options)
    if held.labels is not None:
        source.labels = source.kept(held.labels)
        source.spec = replace(source.spec, classes=held.classes)
    source.notes = held.notes
    return source


def take(where: Any) -> HeldImages | None:
    """Images in memory as `HeldImages`; None if these are none.

    where: an array (N, H, W) or (N, H, W, C), of uint8, uint16 or values from 0 to 1, a tensor (N, H, W) or
        (N, C, H, W) of these; a sequence of paths, or of pictures (Pillow's, arrays, tensors), each alone or
        with its label; a frame with a column of paths; a data set with `len` and `[i]` that gives such; one
        of torchvision's with `samples` and `classes`, whose files are read, whose transforms are left aside.

    Raises:
        UsageError: it is one of these and cannot be read.
    """
    if hasattr(where, "detach") and hasattr(where, "cpu"):
        return _array(np.asarray(where.detach().cpu()), "tensor", first=where.ndim == 4)
    if isinstance(where, np.ndarray) and where.dtype != object:
        return _array(where, "array", first=False)
    if is_frame(where):
        return _frame(where)
    if isinstance(where, bytes | Mapping) or not all(hasattr(where, n) for n in ("__len__", "__getitem__")):
        return None
    if hasattr(where, "samples") and hasattr(where, "classes"):
        return _folder(where)
    if not len(where):
        raise UsageError(f"the {type(where).__name__} is empty")
    if isinstance(where[0], str | os.PathLike):
        return HeldImages(Paths([Path(path) for path in where]), f"{len(where)} paths")
    return _items(where)


def _array(images: np.ndarray, kind: str, *, first: bool) -> HeldImages:
    """An array of all images. first: whether channels come before height and width."""
    notes = []
    what = f"{kind} {tuple(images.shape)}"
    if images.ndim not in (3, 4) or not len(images):
        raise UsageError(
            f"the {what} is none of images: (N, height, width), (N, height, width, channels), or as a tensor "
            "(N, channels, height, width) is read"
        )
    if images.ndim == 4:
        ahead, behind = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
        if ahead and (first or not behind):
            images = np.moveaxis(images, 1, 3)
            notes += [] if first else ["channels were taken from the second axis"]
        elif first and behind:
            notes.append("channels were taken from the last axis")
    if images.dtype.kind == "f" and len(images) and images.min() >= 0 and images.max() <= 1:
        images = (images * 255).round().astype(np.uint8)
        notes.append(_ROUNDED)
    images = whole_numbers(images, f"the {kind}")
    try:
        array_header(kind, images.shape[1:], images.dtype)
    except BadFile as bad:
        raise UsageError(f"the {what}: {bad.reason}") from None
    return HeldImages(Arrays(images), what, notes=tuple(notes))


def _frame(frame: Any) -> HeldImages:
    """Files whose paths stand in a column, with the labels of one that is called so."""
    held = HeldImages(Paths(paths_of(frame)), f"frame of {len(frame)} files")
    column = label_column(frame)
    if column is not None:
        held.labels, held.classes = class_numbers(cells_of(frame, column), len(frame))
        held.notes = (f"labels are those of the frame's column '{column}'",)
    return held


def _folder(folder: Any) -> HeldImages:
    """A data set of torchvision's kind, whose samples are files with class numbers."""
    paths, numbers = zip(*folder.samples, strict=True)
    labels, classes = class_numbers(list(numbers), len(paths), tuple(map(str, folder.classes)))
    transforms = [name for name in ("transform", "transforms") if getattr(folder, name, None) is not None]
    notes = (f"its {transforms[0]} is left aside: views are made by the method",) if transforms else ()
    what = f"{type(folder).__name__} of {len(paths)} files"
    return HeldImages(Paths([Path(path) for path in paths]), what, labels, classes, notes)


def _items(items: Any) -> HeldImages:
    """Pictures one by one, each alone or first of a tuple with its label."""
    kind = type(items).__name__
    pictures = Items(items)
    notes = (_ROUNDED,) if pictures.shares else ()
    held = HeldImages(pictures, f"{kind} of {len(pictures.labels)} pictures", notes=notes)
    if any(label is not None for label in pictures.labels):
        names = tuple(map(str, getattr(items, "classes", ())))
        held.labels, held.classes = class_numbers(pictures.labels, len(pictures.labels), names)
    return held


class Arrays:
    """`Originals` in one array, (N, H, W) or (N, H, W, C) uint8 or uint16."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.names: Sequence[str] = Names.of(f"{i:06d}" for i in range(len(images)))

    @cached_property
    def _digest(self) -> bytes:
        digest = blake2b(f"{self._images.shape} {self._images.dtype}".encode(), digest_size=16)
        for image in self._images:
            digest.update(np.ascontiguousarray(image).data)
        return digest.digest()

    def identity(self) -> Iterator[bytes]:
        """A digest of all values."""
        yield b"array " + self._digest

    def white_from(self) -> Sequence[int]:
        """All images, if they have more than 8 bits."""
        return range(len(self.names)) if self._images.dtype == np.uint16 else ()

    def header(self, i: int) -> Header:
        """Size and kind of one image."""
        return array_header(self.names[i], self._images.shape[1:], self._images.dtype)

    def peak(self, i: int) -> int:
        """The largest value of one image."""
        return int(self._images[i].max()) if self._images.dtype == np.uint16 else 0

    def decode(self, i: int, form: Form) -> Decoded:
        """One image, brought to the form."""
        image = self._images[i]
        return Decoded(fit_array(self.names[i], image, form), image.shape[:2], _digest_of(image))


class Paths:
    """`Originals` in files that were named one by one; a file's name is the path that was given."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.names: Sequence[str] = Names.of(path.as_posix() for path in paths)

    def identity(self) -> Iterator[bytes]:
        """Places, sizes and times."""
        for path in self._paths:
            try:
                state = path.stat()
            except OSError:  # reading it will say what is wrong
                yield os.fsencode(path.absolute())
            else:
                yield os.fsencode(path.absolute()) + f"\0{state.st_size}\0{state.st_mtime_ns}".encode()

    def white_from(self) -> Sequence[int]:
        """Evenly spaced files."""
        return evenly(range(len(self._paths)))

    def header(self, i: int) -> Header:
        """The file's header; raises `BadFile`."""
        name = self.names[i]
        with open_file(self._paths[i], name) as file, damage_named(name):
            return read_header(name, file)

    def peak(self, i: int) -> int:
        """The file's largest value, 0 if it has 8 bits or cannot be read."""
        try:
            return peak(self.names[i], read_bytes(self._paths[i], self.names[i]))
        except BadFile:
            return 0

    def decode(self, i: int, form: Form) -> Decoded:
        """The file's pixels; raises `BadFile`."""
        return decode(self.names[i], read_bytes(self._paths[i], self.names[i]), form)


class Items:
    """`Originals` that a sequence or a data set gives one by one. Each is asked for twice, one at a time.

    labels: (N,) of any type, None where an item is a picture alone. shares: whether fractions go from 0 to 1.
    """

    def __init__(self, items: Any) -> None:
        self._items, self._lock = items, Lock()
        self.names: Sequence[str] = Names.of(f"{i:06d}" for i in range(len(items)))
        self.labels: list[Any] = []
        self._digests: list[bytes] = []
        brightest = 0.0
        for i in range(len(items)):
            picture, label = self._item(i)
            self.labels.append(label)
            values = np.asarray(picture)
            self._digests.append(_digest_of(values))
            if values.dtype.kind == "f" and values.size:
                brightest = max(brightest, float(values.max()))
        # one range for all: a dark picture of 0 to 255 must not be taken for shares of white
        self.shares = 0 < brightest <= 1

    def _item(self, i: int) -> tuple[Image.Image | np.ndarray, Any]:
        """A picture and its label."""
        with self._lock:
            item = self._items[i]
        picture: Any = item
        label: Any = None
        if isinstance(item, tuple | list) and item:
            picture, label = item[0], item[1] if len(item) > 1 else None
        if hasattr(label, "item"):
            label = label.item()
        if isinstance(picture, Image.Image):
            return picture, label
        return _one_array(picture, self.names[i]), label

    def identity(self) -> Iterator[bytes]:
        """A digest of all pictures."""
        yield b"items " + blake2b(b"".join(self._digests), digest_size=16).digest()

    def white_from(self) -> Sequence[int]:
        """Evenly spaced pictures."""
        return evenly(range(len(self.names)))

    def header(self, i: int) -> Header:
        """Size and kind of one picture; raises `BadFile`."""
        picture, name = self._item(i)[0], self.names[i]
        if isinstance(picture, Image.Image):
            return picture_header(name, picture)
        whole = self._whole(picture, name)
        return array_header(name, whole.shape, whole.dtype)

    def peak(self, i: int) -> int:
        """The picture's largest value, 0 if it has 8 bits."""
        picture = self._item(i)[0]
        values = (
            np.asarray(picture) if isinstance(picture, Image.Image) else self._whole(picture, self.names[i])
        )
        return int(values.max()) if values.dtype.itemsize > 1 else 0

    def _whole(self, picture: np.ndarray, name: str) -> np.ndarray:
        """An array as uint8 or uint16."""
        if picture.dtype.kind == "f" and self.shares and picture.min() >= 0:
            return (picture * 255).round().astype(np.uint8)
        return whole_numbers(picture, f"picture {name}")

    def decode(self, i: int, form: Form) -> Decoded:
        """The picture's pixels; raises `BadFile`, also where it is another than before."""
        picture, name = self._item(i)[0], self.names[i]
        digest = _digest_of(np.asarray(picture))
        if digest != self._digests[i]:
            raise BadFile(name, "another picture each time: pass the data set without random transforms")
        if isinstance(picture, Image.Image):
            with damage_named(name):
                return Decoded(*fit_picture(name, picture, form), digest)
        whole = self._whole(picture, name)
        array_header(name, whole.shape, whole.dtype)
        return Decoded(fit_array(name, whole, form), whole.shape[:2], digest)


def _one_array(picture: Any, name: str) -> np.ndarray:
    """One picture, (H, W) or (H, W, C) of its own dtype, of a tensor (C, H, W) or an array."""
    tensor = hasattr(picture, "detach")
    try:
        array = np.asarray(picture.detach().cpu() if tensor else picture)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"picture {name} is of type {type(picture).__name__}: {error}") from None
    if array.ndim not in (2, 3) or array.dtype == object:
        raise UsageError(
            f"item {name} is no picture (type {type(picture).__name__}, shape {array.shape}): a picture of "
            "Pillow, an array (height, width[, channels]) or a tensor (channels, height, width) is read"
        )
    if array.ndim == 3 and array.shape[0] in _CHANNELS and (tensor or array.shape[2] not in _CHANNELS):
        array = np.moveaxis(array, 0, 2)
    return array


def _digest_of(image: np.ndarray) -> bytes:
    digest = blake2b(f"{image.shape} {image.dtype.name}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
