"""What a reader could not expect of volumes, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tacit.data.volume.grid import is_sheared
from tacit.data.volume.store import Stored

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


def counted(names: Sequence[str]) -> str:
    """The subject of a sentence: "a.nii has", or "3 volumes (such as a.nii) have"."""
    return f"{names[0]} has" if len(names) == 1 else f"{len(names):,} volumes (such as {names[0]}) have"
