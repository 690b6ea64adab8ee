"""Arrays of HDF5 files, which can say that their values lie in other files: those are not opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tacit.data.reading import open_file
from tacit.errors import BadFile, require


def open_hdf5(path: Path, name: str) -> Any:
    """The file, of which nothing but its structure has been read.

    Raises:
        BadFile: it is empty, or not a regular file. UsageError: the package is not installed.
    """
    h5py = require("h5py", "volumes")
    with open_file(path, name) as opened:
        if not opened.read(1):
            raise BadFile(name, "empty file (0 bytes)")
    return h5py.File(path, "r")


def dataset(name: str, file: Any, key: str) -> Any:
    """The array of this name in an HDF5 file, not read; None if there is none.

    Raises:
        BadFile: its values lie in another file, which would be opened because this one says so.
    """
    h5py = require("h5py", "volumes")
    link = file.get(key, getlink=True)
    if link is None:
        return None
    place = link.path.lstrip("/") if isinstance(link, h5py.SoftLink) else key
    if place != key:  # a way through groups could lead into another file
        link = None if "/" in place else file.get(place, getlink=True)
    found = file.get(place) if isinstance(link, h5py.HardLink) else None
    array = isinstance(found, h5py.Dataset)
    if found is None or (array and (found.external or found.is_virtual)):
        raise BadFile(name, f"its {key} is not in this file, but a link to another: save it in this one")
    return found if array else None
