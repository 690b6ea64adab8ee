"""What a reader could not expect of volumes, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tacit.data.source import Source
from tacit.data.volume.grid import is_sheared
from tacit.data.volume.store import Stored

_NAMED = 6
_SHEARED = (
    "axes that are not at right angles (a tilted gantry): patches are cut along these; millilitres and "
    "distances are true"
)


def geometry_notes(names: Sequence[str], volumes: Sequence[Stored]) -> tuple[str, ...]:
    """Of the volumes whose geometry is unusual, each kind in one sentence."""
    kinds: dict[str, list[str]] = {}
    for name, stored in zip(names, volumes, strict=True):
        found = [_SHEARED] if is_sheared(np.array(stored.facts.affine)) else []
        for kind in (*stored.facts.notes, *found):
            kinds.setdefault(kind, []).append(name)
    return tuple(f"{counted(owners)} {kind}" for kind, owners in kinds.items())


def few_values(names: Sequence[str]) -> tuple[str, ...]:
    """Of volumes that could be masks, by their voxels alone."""
    if not names:
        return ()
    return (f"{counted(names)} few different values, as masks have, and will be learned from",)


def empty_classes(source: Source) -> tuple[str, ...]:
    """Of class numbers without a name that no mask holds."""
    held = set(source.mask_values)
    gaps = [name for k, name in enumerate(source.spec.classes) if name == str(k) and k not in held]
    if not gaps:
        return ()
    more = f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
    return (f"no mask holds {', '.join(gaps[:_NAMED])}{more}, and classes are numbered through all the same",)


def counted(names: Sequence[str]) -> str:
    """The subject of a sentence: "a.nii has", or "3 volumes (such as a.nii) have"."""
    return f"{names[0]} has" if len(names) == 1 else f"{len(names):,} volumes (such as {names[0]}) have"
