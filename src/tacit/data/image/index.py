"""The listing of a folder, kept, so that a million files need not be listed again.

A kept listing is used if every folder below has the same times of change as when it was listed (so no
file was added, removed or renamed) and each file the same size and time. Of more than 100,000 files only
10,000, always the same, are looked at: to look at a million takes longer than a second. **So in a
folder of more than 100,000 files a few that were overwritten in place can go unnoticed; `touch FOLDER`
has it listed again**, with the state of every file. Programs that write a new file and rename it, as
rsync does, are always noticed.

A folder that was changed less than two seconds before it was listed could have been changed again
without another time (the times of some file systems are so coarse); such a listing is not used.

Measured on two cores, 1,000 folders x 1,000 files: see `benchmarks/results/index.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from tacit.data.image.listing import EXTENSIONS, Listing, list_images
from tacit.data.names import Names, load_arrays
from tacit.data.options import Options
from tacit.data.source import Skipped
from tacit.errors import TacitError
from tacit.files import write_atomically
from tacit.rng import Rng

FORMAT = 2  # raised whenever what is kept, or what is listed, changes
_ALL = 100_000  # files up to which each is looked at
_SAMPLE = 10_000
_COARSE = 2_000_000_000  # ns, of the times of FAT; ext3 and HFS+ have 1 s, others less


def indexed(folder: Path, options: Options) -> Listing:
    """The listing of `folder`: the one that is kept if nothing changed, else a new one, which is kept.

    Where it cannot be kept (a cache that cannot be written), it is listed each time.
    """
    path = options.indices / f"{_key(folder)}.safetensors"
    listing = _loaded(path)
    if listing is None or not _is_current(listing):
        listing = list_images(folder)
        if len(listing.names):
            with contextlib.suppress(TacitError):
                _save(path, listing)
    return listing


def _key(folder: Path) -> str:
    root = os.fsencode(folder.resolve())
    return blake2b(f"{FORMAT} {EXTENSIONS}\0".encode() + root, digest_size=16).hexdigest()


def _save(path: Path, listing: Listing) -> None:
    notes = {
        "root": os.fspath(listing.root),
        "began": listing.began,
        "digest": listing.digest,
        "others": listing.others,
        "closed": listing.closed,
    }
    arrays = {
        "names": listing.names.text,
        "name_ends": listing.names.ends,
        "sizes": listing.sizes,
        "times": listing.times,
        "folders": listing.folders.text,
        "folder_ends": listing.folders.ends,
        "changed": listing.changed,
        "folder_of": listing.folder_of,
    }
    write_atomically(path, save(arrays, metadata={"listing": json.dumps(notes)}))


def _loaded(path: Path) -> Listing | None:
    """What is kept there; None if it is absent or damaged."""
    try:
        arrays, metadata = load_arrays(path)
        notes = json.loads(metadata["listing"])
        listing = Listing(
            root=Path(notes["root"]),
            names=Names(arrays["names"], arrays["name_ends"]),
            sizes=arrays["sizes"],
            times=arrays["times"],
            folders=Names(arrays["folders"], arrays["folder_ends"]),
            changed=arrays["changed"],
            folder_of=arrays["folder_of"],
            began=int(notes["began"]),
            others=Counter(notes["others"]),
            closed=[Skipped(*entry) for entry in notes["closed"]],
        )
        listing.digest = str(notes["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    lengths = {len(listing.names), *map(len, (listing.sizes, listing.times, listing.folder_of))}
    return listing if len(lengths) == 1 and len(listing.folders) == len(listing.changed) else None


def _is_current(listing: Listing) -> bool:
    if int(listing.changed.max(initial=0)) > listing.began - _COARSE:
        return False
    root = os.path.join(os.fsencode(listing.root), b"")
    for name, known in zip(listing.folders, listing.changed.tolist(), strict=True):
        state = _state(root + os.fsencode(name))
        if state is None or [state.st_mtime_ns, state.st_ctime_ns] != known:
            return False
    chosen = _looked_at(len(listing.names))
    sizes, times = listing.sizes[chosen].tolist(), listing.times[chosen].tolist()
    for i, size, time in zip(chosen.tolist(), sizes, times, strict=True):
        state = _state(root + listing.names.encoded(i))
        if (state.st_size, state.st_mtime_ns) != (size, time) if state else size != -1:
            return False
    return True


def _state(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _looked_at(count: int) -> np.ndarray:
    """Positions of the files that are looked at, ascending; a function of the count."""
    if count <= _ALL:
        return np.arange(count)
    drawn = Rng.of(0)("index").numpy().integers(0, count, _SAMPLE)
    return np.unique(drawn)
