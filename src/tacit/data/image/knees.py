"""Radiographs of knees, DICOM, PNG or JPEG, as the pairs of mirrored patches that Semixup learns from.

One image shows one knee, its joint in the centre; a film of both legs has to be cut in two before. Geometry
and scale are those of the published code of Nguyen et al., "Semixup", 2020, arXiv 2003.01944.

DICOM files need the extra `radiographs`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import ImageOps

from tacit.data.image.decoding import open_image, read_header, values_of
from tacit.data.labels import read_labels
from tacit.data.limits import check_memory, check_unpacked
from tacit.data.progress import counted
from tacit.data.reading import damage_named, open_file, read_bytes
from tacit.data.source import UNLABELLED, Skipped
from tacit.errors import BadFile, TacitError, UsageError, require, unknown
from tacit.files import expanded, replacing

FIELD_MM = 110.0  # side of the square that is looked at
USUAL_MM = 140.0  # side of the published images, 700 pixels of 0.2 mm
SIDE, PATCH = 300, 128  # pixels of that square and of a patch
_TOP, _RIGHT = 100, SIDE - PATCH  # first row of both patches, first column of the second
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_DICOM = (".dcm", ".dicom")
_WORKING = 12  # bytes for each of a DICOM file's pixels: as numbers of 8 bytes, and their shares of white
_MARK = slice(128, 132)  # where a DICOM file says DICM
_SQUARE = 0.01  # relative difference of the spacings of rows and columns that is let pass


class Radiograph(NamedTuple):
    """image: (H, W) uint8, bone bright. spacing_mm: side of a pixel, None where the file does not say."""

    image: np.ndarray
    spacing_mm: float | None


class Converted(NamedTuple):
    """What `convert_knees` has written: the file, its images, those with a label, and what was left out."""

    path: Path
    images: int
    labelled: int
    skipped: tuple[Skipped, ...]


def knee_patches(image: np.ndarray, spacing_mm: float | None) -> np.ndarray:
    """The two sides of a knee, the second mirrored, so that both look the same way.

    The central 110 x 110 mm are averaged to 300 x 300 pixels, each the mean of the area that it covers;
    the patches are the rows 100 .. 227 of the columns 0 .. 127 and 172 .. 299. That averaging is OpenCV's
    INTER_AREA (checked: the same pixels wherever it shrinks). It is written here because Pillow's BOX and
    torch's "area" take pixels whole: from 550 pixels of a photograph they are off by 2.8 and 2.2 grey
    levels in the mean.

    image: (H, W) uint8. spacing_mm: side of a pixel; None takes the shorter side of the image as 140 mm,
        that of the published images (our choice: pictures do not say).

    Returns (2, 128, 128) uint8.

    Raises:
        UsageError: another kind of array, a spacing not above 0, or an image of less than 110 mm.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise UsageError(f"a radiograph is (height, width) uint8, not {image.shape} {image.dtype}")
    if spacing_mm is not None and not 0 < spacing_mm < FIELD_MM:
        raise UsageError(f"spacing_mm must be above 0 and below {FIELD_MM:g}, not {spacing_mm}")
    height, width = image.shape
    spacing = spacing_mm or USUAL_MM / min(height, width)
    side = round(FIELD_MM / spacing)
    if side > min(height, width):
        shown = f"{width * spacing:.0f} x {height * spacing:.0f} mm"
        raise UsageError(
            f"{width} x {height} px of {spacing:g} mm show {shown}; "
            f"{FIELD_MM:.0f} x {FIELD_MM:.0f} mm are cut out of the centre"
        )
    top, left = (height - side) // 2, (width - side) // 2
    share = _coverage(side)
    square = share @ image[top : top + side, left : left + side] @ share.T
    rows = np.rint(square[_TOP : _TOP + PATCH]).astype(np.uint8)
    return np.stack([rows[:, :PATCH], rows[:, _RIGHT:][:, ::-1]])


@lru_cache(maxsize=4)
def _coverage(side: int) -> np.ndarray:
    """(SIDE, side): the share of each of `side` pixels in each of SIDE equal parts; rows of sum 1."""
    edges = np.linspace(0, side, SIDE + 1)[:, None]
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return overlap.clip(0) * (SIDE / side)


def read_radiograph(path: str | os.PathLike[str], name: str | None = None) -> Radiograph:
    """One radiograph with the size of its pixels.

    DICOM: one frame, grey. The modality's rescaling is applied, then the window that the file brings (the
    first; a table of grey values instead of a window is not looked at), else the values from the 1st to
    the 99th percentile are spread over 0 to 255 (our choice, because the range of the stored values says
    nothing). MONOCHROME1 is inverted. The spacing is PixelSpacing, else ImagerPixelSpacing, which is
    measured on the detector, behind the knee, and larger by the magnification.

    PNG, JPEG and other pictures: made grey; more than 8 bits are spread by percentiles as above. Their
    spacing is None: the dots per inch that some state are of a page or a screen.

    name: what the file is called in errors; by default its name without folders.

    Raises:
        BadFile: the file cannot be read, is damaged, no image, or has no single right reading.
        UsageError: a DICOM file without the extra `radiographs`.
    """
    path = Path(path)
    name = name or path.name
    data = read_bytes(path, name)
    radiograph = _read_dicom(name, data) if _is_dicom(path, data) else _read_picture(name, data)
    if radiograph.image.min() == radiograph.image.max():
        raise BadFile(name, "blank: all pixels have the same value")
    return radiograph


def convert_knees(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    labels: str | Path | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    on_bad_file: Literal["stop", "skip"] = "stop",
    progress: bool = True,
) -> Converted:
    """Write the patches of all radiographs below a folder into one archive that `open_source` reads.

    The archive holds images, (N, 128, 128, 2) uint8, and names, (N,), the paths below the folder, sorted;
    with `labels` also labels, (N,): the grades as they stand in the CSV, -1 for images without one.

    folder: pictures (.png, .jpg, .bmp, .tif, .webp) and DICOM files, whatever these are called.
    out: an .npz file; it appears whole or not at all.
    labels: a CSV file as `tacit.data.labels.read_labels` takes it, one label per image. label_column,
        file_column: its columns, by title.
    on_bad_file: "stop" at the first file that cannot be used, or "skip" all of them.
    progress: show a bar, if stderr is a terminal.

    Raises:
        UsageError: no such folder, no radiographs in it, another ending than .npz, or wrong labels.
        BadFile: a file cannot be used and `on_bad_file` is "stop".
        TacitError: no file can be used, or `out` cannot be written.
    """
    root, target = expanded(folder), Path(out)
    if on_bad_file not in ("stop", "skip"):
        raise unknown("way with bad files", on_bad_file, ("stop", "skip"))
    if target.suffix != ".npz":
        raise UsageError(f"the patches are written as .npz, not '{target.name}'")
    names = _radiographs(root)
    grades = None if labels is None else _grades(labels, names, label_column, file_column)
    images = np.empty((len(names), PATCH, PATCH, 2), np.uint8)
    kept: list[int] = []
    skipped: list[Skipped] = []
    with replacing(target) as file:  # here already, so that a folder that cannot be written is known at once
        for i, name in enumerate(counted(names, len(names), progress, "cutting")):
            try:
                images[len(kept)] = np.moveaxis(_patches_of(root, name), 0, 2)
                kept.append(i)
            except BadFile as bad:
                if on_bad_file == "stop":
                    raise
                skipped.append(Skipped(bad.name, bad.reason))
        if not kept:
            name, reason = skipped[0]
            raise TacitError(f"none of the {len(names)} radiographs can be used; {name}: {reason}")
        whole, called = images[: len(kept)], np.array(names)[kept]
        if grades is None:
            np.savez(file, images=whole, names=called)
        else:
            np.savez(file, images=whole, names=called, labels=grades[kept])
    labelled = 0 if grades is None else int((grades[kept].astype(str) != str(UNLABELLED)).sum())
    return Converted(target, len(kept), labelled, tuple(skipped))


def _patches_of(root: Path, name: str) -> np.ndarray:
    radiograph = read_radiograph(root / name, name)
    try:
        return knee_patches(*radiograph)
    except UsageError as error:
        raise BadFile(name, str(error)) from None


def _grades(
    labels: str | Path, names: Sequence[str], label_column: str | None, file_column: str | None
) -> np.ndarray:
    """(N,) labels as the CSV has them, int64 if all are whole numbers, else text; -1 for none."""
    found = read_labels(labels, names, label_column=label_column, file_column=file_column)
    classes = found.classes
    grades = np.array([*classes, str(UNLABELLED)])[found.labels]
    whole = all(name.lstrip("-").isdecimal() and str(int(name)) == name for name in classes)
    return grades.astype(np.int64) if whole else grades


def _radiographs(root: Path) -> list[str]:
    """Paths below the folder of all that may be radiographs, sorted; what begins with a dot is left out."""
    if not root.is_dir():
        raise UsageError(f"no folder {root}: name the one that holds the radiographs")
    found = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.is_dir() or any(part.startswith(".") for part in parts) or path.name == "DICOMDIR":
            continue
        if path.suffix.lower() in _PICTURES + _DICOM or _says_dicom(path):
            found.append("/".join(parts))
    if not found:
        raise UsageError(f"no radiographs in {root} (read are DICOM files and {' '.join(_PICTURES)})")
    return sorted(found)


def _says_dicom(path: Path) -> bool:
    try:
        with open_file(path, path.name) as file:
            return file.read(_MARK.stop)[_MARK] == b"DICM"
    except (BadFile, OSError):
        return False


def _is_dicom(path: Path, data: bytes) -> bool:
    return data[_MARK] == b"DICM" or path.suffix.lower() in _DICOM


def _read_picture(name: str, data: bytes) -> Radiograph:
    with damage_named(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_header(name, BytesIO(data))
        with open_image(name, BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened)
            if header.deep:
                return Radiograph(_spread(values_of(picture)), None)
            return Radiograph(np.asarray(picture.convert("L")), None)


def _read_dicom(name: str, data: bytes) -> Radiograph:
    pydicom, pixels = require("pydicom", "radiographs"), require("pydicom.pixels", "radiographs")
    if data[_MARK] != b"DICM":
        raise BadFile(name, f"not a DICOM file: it starts with {data[:8]!r}")
    with damage_named(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(BytesIO(data))
        _check_readable(name, dataset, pixels)
        declared = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
        check_unpacked(name, declared, len(data))
        check_memory(name, _WORKING * declared)
        values = pixels.apply_modality_lut(dataset.pixel_array, dataset)
        image = _windowed(values, dataset, pixels)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            image = 255 - image
        return Radiograph(image, _spacing(name, dataset))


def _check_readable(name: str, dataset: Any, pixels: Any) -> None:
    if "PixelData" not in dataset:
        raise BadFile(name, "no pixel data: a report, or a file that was cut off")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadFile(name, f"{frames} frames: save the one that is meant as a file of its own")
    colours = dataset.get("PhotometricInterpretation")
    if colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadFile(name, f"colours of the kind {colours}: a radiograph is MONOCHROME1 or MONOCHROME2")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not pixels.get_decoder(syntax).is_available:
        mend = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        raise BadFile(name, f"compressed as {syntax.name}, which needs a decoder: {mend}")


def _windowed(values: np.ndarray, dataset: Any, pixels: Any) -> np.ndarray:
    """(H, W) -> uint8, by the file's window or by percentiles."""
    centre, width = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    if not centre or not width or width[0] < 1:
        return _spread(values)
    black, white = pixels.apply_windowing(np.array([-1e12, 1e12]), dataset)  # what its ends become
    return _scaled(pixels.apply_windowing(values, dataset), black, white)


def _spread(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    if low == high:
        low, high = values.min(), values.max()
    return _scaled(values, low, high)


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    share = (values.astype(np.float64) - black) / ((white - black) or 1.0)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def _spacing(name: str, dataset: Any) -> float | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = _numbers(dataset, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            if max(spacing) > (1 + _SQUARE) * min(spacing):
                raise BadFile(name, f"pixels of {spacing[0]:g} x {spacing[1]:g} mm: they must be square")
            return sum(spacing) / 2
    return None


def _numbers(dataset: Any, keyword: str) -> list[float]:
    """The values of an element, of which there may be none, one or several."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [float(part) for part in (value if isinstance(value, Sequence) else [value])]
