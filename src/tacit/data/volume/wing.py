"""Volumes: folders and archives of them; their slices are images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tacit.data.options import Options
from tacit.data.source import Source, Subset
from tacit.data.volume.archive import holds_volume_archive, open_volume_archive
from tacit.data.volume.files import EXTENSIONS
from tacit.data.volume.form import VolumeForm
from tacit.data.volume.layout import holds_volumes
from tacit.data.volume.options import VolumeOptions
from tacit.data.volume.slices import open_slices
from tacit.data.volume.volumes import Volumes, open_volumes
from tacit.data.volume.windows import Window
from tacit.errors import UsageError
from tacit.files import expanded

FORM = VolumeForm
LAST = False
NAMES = ()
_SLICES = "slices:"


def kind(where: Any) -> str:
    """Volumes; slices are images."""
    return "image" if isinstance(where, str) and where.startswith(_SLICES) else FORM.modality


def holds(where: Any, options: Options, words: Mapping[str, Any]) -> bool:
    """A folder with volumes, an archive of them, or slices:FOLDER."""
    if isinstance(where, str) and where.startswith(_SLICES):
        return True
    path = expanded(where)
    if path.is_dir():
        return holds_volumes(path)
    archive = path.suffix.lower() == ".npz" and path.is_file()
    return archive and holds_volume_archive(path, options, _wishes(words))


def open(where: Any, options: Options, words: Mapping[str, Any]) -> Source:
    """The volumes with their masks; of slices:FOLDER images."""
    wishes = _wishes(words)
    if isinstance(where, str) and where.startswith(_SLICES):
        folder = expanded(where.removeprefix(_SLICES))
        if not folder.exists():
            raise FileNotFoundError(folder)
        if not folder.is_dir():
            raise UsageError(f"slices: names a folder of volumes, and {folder} is a file")
        return open_slices(folder, options, wishes)
    path = expanded(where)
    if not path.is_dir():
        return open_volume_archive(path, options, wishes)
    if options.size is not None:
        raise UsageError("size is for images; volumes are cut in patches: give the patch, in voxels")
    return open_volumes(path, options, wishes)


def adjusted(source: Source, words: Mapping[str, Any]) -> Source:
    """With other patches, if these are asked for."""
    wishes = _wishes(words)
    wanted = {name: getattr(wishes, name) for name in wishes.given if name != "patch"}
    if "window" in wanted:
        wanted["window"] = str(Window.parse(wanted["window"]))
    own = source.parent if isinstance(source, Subset) else source
    others = [name for name, value in wanted.items() if value != getattr(own, name, None)]
    if others:
        raise UsageError(f"{', '.join(others)}: these data are open already; say so when they are opened")
    if wishes.patch is None:
        return source
    if not isinstance(source, Volumes):
        raise UsageError("patch is for volumes, and these data are no volumes, or a part of them")
    return source.with_patch(wishes.patch)


def extensions() -> tuple[str, ...]:
    """Of files that are read."""
    return tuple(EXTENSIONS)


def _wishes(words: Mapping[str, Any]) -> VolumeOptions:
    return VolumeOptions.of(*(words.get(name) for name in ("masks", "window", "spacing", "patch")))
