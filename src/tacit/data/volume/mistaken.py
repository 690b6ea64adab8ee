"""Masks that would be learned from as volumes, because their names are not those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tacit.data.splits import part_of
from tacit.data.volume.naming import (
    SUFFIXES,
    extends,
    has_mask_word,
    is_among_volumes,
    stem_of_volume,
)

FEW = 64  # different whole numbers; volumes have more, and few masks do


def taken_for_volumes(distinct: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Volumes that are masks by their voxels and by their names, with why; and those by their voxels alone.

    None if all volumes have few values, because then nothing is mixed.

    distinct: how many different whole numbers the voxels of each volume are, 0 if they are not, by name; also
        0 for those that have a mask or are no files, because these are volumes whatever they hold.
    """
    looks = {name for name, count in distinct.items() if 0 < count <= FEW}
    stems = {stem_of_volume(name): name for name in distinct if name not in looks}
    if not looks or not stems:
        return {}, []
    lasts = {stem.rpartition("/")[2]: name for stem, name in stems.items()}
    reasons, doubtful = {}, []
    for name in sorted(looks):
        other = _like(name, stems, lasts)
        placed = is_among_volumes(name)
        if other is None and (placed or not has_mask_word(name)):
            doubtful.append(name)
            continue
        called = f"is called like {other}" if other else "is called like one"
        reasons[name] = (
            f"it holds {distinct[name]} different whole numbers, as a mask does, and {called}: masks are "
            f"called as their volume with {SUFFIXES} behind, or as it is in labels/ beside images/ or in the "
            "folder that --masks names; if it is a volume, "
            f"{'give it another name' if placed else 'put it into a folder images'}"
        )
    return reasons, doubtful


def called_as_others(volumes: Sequence[str]) -> dict[str, str]:
    """Volumes that are called as another with something behind, with what to do if they are masks; by name.

    Masks of probabilities are such: their voxels do not look like those of a mask.
    """
    stems = {stem_of_volume(name): name for name in volumes}
    found = ((name, _beginning(stem_of_volume(name), stems)) for name in volumes)
    return {
        name: f"{name} is taken for a volume: if it is the mask of {other}, let it end in {SUFFIXES}, or put "
        "masks into a folder labels"
        for name, other in found
        if other is not None
    }


def _like(name: str, stems: Mapping[str, str], lasts: Mapping[str, str]) -> str | None:
    """The volume whose name this one has, in another folder or with something behind.

    Folders for volumes and splits hold files of the same names that are volumes all the same.
    """
    stem = stem_of_volume(name)
    placed = is_among_volumes(name) or any(part_of(folder) for folder in name.split("/")[:-1])
    if not placed and (other := lasts.get(stem.rpartition("/")[2])) is not None:
        return other
    return _beginning(stem, stems)


def _beginning(stem: str, stems: Mapping[str, str]) -> str | None:
    """The volume whose name a stem has with something behind."""
    ends = (stem[:at] for at in range(len(stem) - 1, stem.rfind("/") + 1, -1))
    return next((stems[end] for end in ends if end in stems and extends(stem, end)), None)
