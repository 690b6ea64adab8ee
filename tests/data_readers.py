"""What reads files of data: for each format a sound file beside others, and the reading of all of them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from run_readers import Reader
from tacit.data.labels import read_groups, read_labels
from tacit.data.open import open_source
from tacit.data.values import read_values

NAMES = [f"case{i}.png" for i in range(6)]


def _waves(seed: int, *shape: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (127 + 60 * np.sin(np.arange(np.prod(shape)) / 5).reshape(shape) + draw.normal(0, 20, shape)).clip(
        0, 255
    )


def _picture(format: str, mode: str = "RGB", frames: int = 1, **words: Any) -> bytes:
    pixels = _waves(1, 20, 24, 3).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode) if mode != "I;16" else _deep()
    file = io.BytesIO()
    more = {"save_all": True, "append_images": [image] * (frames - 1)} if frames > 1 else {}
    image.save(file, format, **more, **words)
    return file.getvalue()


def _deep() -> Image.Image:
    return Image.fromarray((_waves(2, 20, 24) * 100).astype(np.uint16))


def _folder(content: Callable[[], bytes], name: str) -> Callable[[Path], None]:
    """One file of a format beside two sound pictures."""

    def make(folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        for i in range(2):
            (folder / "data" / f"other{i}.png").write_bytes(_picture("PNG"))
        (folder / "data" / name).write_bytes(content())

    return make


def _look(folder: Path, **words: Any) -> None:
    """All samples once; what was decoded before is forgotten."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    source = open_source(folder / "data", cache=cache, progress=False, workers=1, **words)
    samples = source.batch(np.arange(min(8, len(source))))
    assert samples.data.isfinite().all() if samples.data.is_floating_point() else True


def _array(folder: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, _waves(3, 20, 24, 3).astype(np.uint8))
    return file.getvalue()


def _archive(folder: Path) -> None:
    arrays = {f"{split}_images": _waves(4, 6, 12, 12).astype(np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": np.arange(6)[:, None] % 2 for split in ("train", "val", "test")}
    np.savez_compressed(folder / "data.npz", **arrays, **labels)


def _look_at_archive(folder: Path) -> None:
    shutil.rmtree(folder / "cache", ignore_errors=True)
    source = open_source(folder / "data.npz", cache=folder / "cache", progress=False, workers=1)
    source.batch(np.arange(min(8, len(source))))


def _table(header: str, cell: Callable[[int], object]) -> Callable[[Path], None]:
    lines = [header, *(f"{name},{cell(i)}" for i, name in enumerate(NAMES))]
    return lambda folder: (folder / "table.csv").write_text("\n".join(lines) + "\n") and None


def _volumes(folder: Path) -> Path:
    place = folder / "data"
    (place / "imagesTr").mkdir(parents=True, exist_ok=True)
    (place / "labelsTr").mkdir(parents=True, exist_ok=True)
    return place


def _nifti(end: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import nibabel

        place = _volumes(folder)
        for i, ending in enumerate((end, ".nii.gz")):
            voxels, mask = _waves(i, 9, 8, 7).astype(np.int16), (_waves(i, 9, 8, 7) > 130).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), place / "imagesTr" / f"case{i}{ending}")
            nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place / "labelsTr" / f"case{i}.nii.gz")
        names = {"labels": {"0": "background", "1": "a"}}
        (place / "dataset.json").write_text(json.dumps(names))

    return make


def _hdf5(folder: Path) -> None:
    import h5py

    (folder / "data").mkdir(exist_ok=True)
    for i in range(2):
        with h5py.File(folder / "data" / f"case{i}.h5", "w") as file:
            file["image"] = _waves(i, 9, 8, 7).astype(np.float32)
            file["label"] = (_waves(i, 9, 8, 7) > 130).astype(np.uint8)


_PICTURES: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: _picture("PNG"),
    "deep.png": lambda: _picture("PNG", "I;16"),
    "palette.png": lambda: _picture("PNG", "P"),
    "a.jpg": lambda: _picture("JPEG"),
    "a.gif": lambda: _picture("GIF", "P"),
    "film.gif": lambda: _picture("GIF", "P", frames=3),
    "a.bmp": lambda: _picture("BMP"),
    "a.tif": lambda: _picture("TIFF"),
    "deep.tif": lambda: _picture("TIFF", "I;16"),
    "packed.tif": lambda: _picture("TIFF", compression="tiff_lzw"),
    "a.webp": lambda: _picture("WEBP"),
    "a.npy": lambda: _array(Path()),
}
DATA_READERS = {
    reader.name: reader
    for reader in (
        *(
            Reader(name, f"data/{name}", "bytes", _folder(content, name), _look)
            for name, content in _PICTURES.items()
        ),
        Reader("data.npz", "data.npz", "bytes", _archive, _look_at_archive),
        Reader(
            "labels.csv",
            "table.csv",
            "csv",
            _table("file,label", lambda i: "ab"[i % 2]),
            lambda folder: read_labels(folder / "table.csv", NAMES),
        ),
        Reader(
            "groups.csv",
            "table.csv",
            "csv",
            _table("file,patient", lambda i: i // 2),
            lambda folder: read_groups(folder / "table.csv", NAMES),
        ),
        Reader(
            "values.csv",
            "table.csv",
            "csv",
            _table("file,age", lambda i: 30.5 + i),
            lambda folder: read_values(folder / "table.csv", NAMES),
        ),
        Reader("case0.nii", "data/imagesTr/case0.nii", "bytes", _nifti(".nii"), _look),
        Reader("case0.nii.gz", "data/imagesTr/case0.nii.gz", "bytes", _nifti(".nii.gz"), _look),
        Reader("the mask case0.nii.gz", "data/labelsTr/case0.nii.gz", "bytes", _nifti(".nii.gz"), _look),
        Reader("dataset.json", "data/dataset.json", "json", _nifti(".nii.gz"), _look),
        Reader("case0.h5", "data/case0.h5", "bytes", _hdf5, _look),
    )
}
