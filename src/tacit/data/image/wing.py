"""Images: folders, archives, Hugging Face data sets, and the sets inside packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tacit.data.image.arrays import open_archive
from tacit.data.image.folder import open_folder
from tacit.data.image.form import ImageForm
from tacit.data.image.hub import open_hub
from tacit.data.image.listing import EXTENSIONS
from tacit.data.image.memory import HeldImages, open_held, take
from tacit.data.image.packaged import PACKAGED, open_packaged
from tacit.data.options import Options
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.files import expanded

__all__ = ["take"]

FORM = ImageForm
LAST = True  # a folder is of images unless it is of something else
NAMES = tuple(PACKAGED)
_FOREIGN = ("window", "spacing", "patch")


def kind(where: Any) -> str:
    """Images."""
    return FORM.modality


def holds(where: Any, options: Options, words: Mapping[str, Any]) -> bool:
    """Any folder, an .npz archive, hf:NAME, or a packaged set."""
    if isinstance(where, str) and (where.startswith("hf:") or where in PACKAGED):
        return True
    path = expanded(where)
    return path.is_dir() or (path.suffix.lower() == ".npz" and path.is_file())


def open(where: Any, options: Options, words: Mapping[str, Any]) -> Source:
    """The images; with their masks, where a folder has such."""
    if isinstance(where, HeldImages):
        _refuse(words, "what was passed", ("masks", *_FOREIGN))
        return open_held(where, options)
    path = None if isinstance(where, str) and (where.startswith("hf:") or where in PACKAGED) else Path(where)
    folder = path is not None and expanded(path).is_dir()
    _refuse(words, where, _FOREIGN if folder else ("masks", *_FOREIGN))
    if path is None:
        hub = where.startswith("hf:")
        return open_hub(where.removeprefix("hf:"), options) if hub else open_packaged(where, options)
    path = expanded(path)
    if not folder:
        return open_archive(path, options)
    masks = words["masks"]
    place = None if masks is None else expanded(masks)
    return open_folder(path, options, others=words["extensions"], masks=place, masks_aside=words["aside"])


def adjusted(source: Source, words: Mapping[str, Any]) -> Source:
    """The source itself: nothing can be changed."""
    given = [name for name in ("masks", *_FOREIGN) if words[name] is not None]
    if given == ["patch"]:
        raise UsageError("patch is for volumes, and these data are no volumes, or a part of them")
    if given:
        others = ", ".join(name for name in given if name != "patch")
        raise UsageError(f"{others}: these data are open already; say so when they are opened")
    return source


def extensions() -> tuple[str, ...]:
    """Of files that are read."""
    return tuple(EXTENSIONS)


def _refuse(words: Mapping[str, Any], where: Any, names: tuple[str, ...]) -> None:
    given = [name for name in names if words[name] is not None]
    if given:
        said = f"{', '.join(given)} {'are' if len(given) > 1 else 'is'}"
        kind = "folders of images or volumes" if given == ["masks"] else "volumes"
        raise UsageError(f"{said} for {kind}, and {where} holds images")
