"""Masks that would be learned from as volumes, because their names are not those that are known."""

from __future__ import annotations

from collections.abc import Mapping

from tacit.data.volume.naming import SUFFIXES, extends, has_mask_word, stem_of_volume

FEW = 64  # different whole numbers; volumes have more, and few masks do


def taken_for_volumes(distinct: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Volumes that are masks by their voxels and by their names, with why; and those by their voxels alone.

    None if all volumes have few values, because then nothing is mixed.

    distinct: how many different whole numbers the voxels of each volume are, 0 if they are not, by name.
    """
    looks = {name for name, count in distinct.items() if 0 < count <= FEW}
    stems = {stem_of_volume(name): name for name in distinct if name not in looks}
    if not looks or not stems:
        return {}, []
    lasts = {stem.rpartition("/")[2]: name for stem, name in stems.items()}
    reasons, doubtful = {}, []
    for name in sorted(looks):
        other = _like(stem_of_volume(name), stems, lasts)
        if other is None and not has_mask_word(name):
            doubtful.append(name)
            continue
        called = f"is called like {other}" if other else "is called like one"
        reasons[name] = (
            f"it holds {distinct[name]} different whole numbers, as a mask does, and {called}: masks are "
            f"called as their volume with {SUFFIXES} behind, or as it is in labels/ beside images/ or in the "
            "folder that --masks names"
        )
    return reasons, doubtful


def _like(stem: str, stems: Mapping[str, str], lasts: Mapping[str, str]) -> str | None:
    """The volume whose name this one has, in another folder or with something behind."""
    if (other := lasts.get(stem.rpartition("/")[2])) is not None:
        return other
    ends = (stem[:at] for at in range(len(stem) - 1, stem.rfind("/") + 1, -1))
    return next((stems[end] for end in ends if end in stems and extends(stem, end)), None)
