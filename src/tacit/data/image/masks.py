"""Images with masks, of which few may have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Samples
from tacit.data.image.mask_files import LOOKED_AT, VALUES, class_names, class_values, read_mask
from tacit.data.image.mask_layout import Layout
from tacit.data.image.mask_store import MaskFile, StoredMasks, store_masks
from tacit.data.image.originals import evenly
from tacit.data.image.store import StoredImages
from tacit.data.names import Chosen, Names
from tacit.data.options import Options
from tacit.data.reading import fingerprint_of
from tacit.data.source import UNLABELLED, Sample, Skipped, Source, Subset
from tacit.errors import BadFile, TacitError, UsageError


class MaskedImages(Source):
    """Stored images; those with a mask are labelled, and their samples have it as target, (S, S) int64.

    `batch` gives images alone, as the store does. A pickled copy opens the same files again.

    images: all stored images, also those that were left out because of their masks.
    file_values: the value in the files of each class, (0, 255) for instance.
    understood: in words, how many images have a mask, and of what classes.
    """

    def __init__(
        self,
        images: StoredImages,
        stored: StoredMasks,
        kept: np.ndarray,
        row: np.ndarray,
        paths: Names,
        skipped: Sequence[Skipped] = (),
        splits: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """kept: (N,) positions in the store. row: (N,) in `stored`, -1 without mask. paths: of the masks."""
        complete = len(kept) == len(images)
        names = images.names if complete else Chosen(images.names, kept)
        known = np.flatnonzero(row >= 0)
        some = [Path(paths[k]) for k in evenly(row[known], LOOKED_AT)]
        self.file_values = class_values(stored.seen, some)
        super().__init__(
            replace(images.spec, classes=class_names(len(self.file_values)), target="mask"),
            names,
            np.where(row >= 0, 0, UNLABELLED).astype(np.int64),
            splits,
            fingerprint_of(
                ["", *(names[int(i)] for i in known)],
                map(bytes.fromhex, [images.fingerprint, *(stored.digests[int(k)] for k in row[known])]),
            ),
            skipped,
        )
        self.images, self.notes = images, images.notes
        self._stored, self._paths, self._row = stored, paths, row
        self._kept = None if complete else kept
        self._classes = np.zeros(VALUES, np.uint8)
        self._classes[list(self.file_values)] = np.arange(len(self.file_values))
        self._open()

    @property
    def root(self) -> Path | None:
        """The folder below which the images' names are paths."""
        return self.images.root

    @property
    def understood(self) -> str:
        """For instance "60 of 664 images have a mask of background (0), 1 (255)"; empty of other labels."""
        if self.spec.target != "mask":  # they were given others since
            return ""
        pairs = zip(self.spec.classes, self.file_values, strict=True)
        classes = ", ".join(name if name == str(value) else f"{name} ({value})" for name, value in pairs)
        return f"{int((self._row >= 0).sum())} of {len(self)} images have a mask of {classes}"

    def __getitem__(self, i: int) -> Sample:
        i = range(len(self))[i]
        sample = replace(self.images[self._at(i)], index=i, label=int(self.labels[i]))
        if sample.label != UNLABELLED and self.spec.target == "mask":
            classes = self._classes[self._pixels[self._row[i]]]
            sample.target = torch.from_numpy(classes.astype(np.int64))
        return sample

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Samples:
        """The samples at these positions, (B, C, S, S) uint8, without masks."""
        positions = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        if self._kept is None:
            return self.images.batch(positions)
        return replace(self.images.batch(self._kept[positions.numpy()]), index=positions)

    def read_mask(self, i: int) -> np.ndarray:
        """The classes of an image in its own size, upright, (H, W) int64, from the file.

        Raises:
            UsageError: there is no mask. BadFile: the file has changed.
        """
        i = range(len(self))[i]
        if self._row[i] < 0:
            raise UsageError(f"{self.names[i]} has no mask")
        row = int(self._row[i])
        path = Path(self._paths[row])
        height, width = self.images.true_size[self._at(i)].int().tolist()
        values, _ = read_mask(path, path.name, (height, width), self._stored.orientations[row])
        return self._classes[values].astype(np.int64)

    def _at(self, i: int) -> int:
        return i if self._kept is None else int(self._kept[i])

    def _open(self) -> None:
        self._pixels = self._stored.open()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()


def masked_of(source: Source) -> MaskedImages:
    """The images with masks that a source is, or is a part of.

    Raises:
        UsageError: it has none.
    """
    while isinstance(source, Subset):
        source = source.parent
    if not isinstance(source, MaskedImages):
        raise UsageError(
            "the data are no images with masks: put masks/ beside images/, x_mask.png beside x.png, or name "
            "their folder with --masks"
        )
    return source


def with_masks(images: StoredImages, layout: Layout, options: Options) -> MaskedImages:
    """Stored images with the masks that were found.

    Raises:
        UsageError: values that are no class numbers.
        BadFile: a mask cannot be used and `on_bad_file` is "stop"; the first one in the order of names.
        TacitError: no mask can be used, or the cache cannot be written.
    """
    labelled = [i for i, name in enumerate(images.names) if name in layout.mask_of]
    sizes, times = images.kept(layout.images.sizes), images.kept(layout.images.times)
    files = [_file(images, i, layout, (int(sizes[i]), int(times[i]))) for i in labelled]
    stored = store_masks(files, images.spec.shape[-1], options)
    skipped = [
        Skipped(images.names[labelled[k]], f"its mask {files[k].name}: {reason}")
        for k, reason in sorted(stored.bad.items())
    ]
    if skipped and options.on_bad_file == "stop":
        raise BadFile(*skipped[0])
    if len(skipped) == len(labelled):
        name, reason = skipped[0]
        raise TacitError(f"none of the {len(labelled)} masks can be used; {name}: {reason}")
    row = np.full(len(images), UNLABELLED, np.int64)
    row[labelled] = np.arange(len(labelled))
    kept = np.delete(np.arange(len(images)), [labelled[k] for k in stored.bad])
    return MaskedImages(
        images,
        stored,
        kept,
        row[kept],
        Names.of(str(file.path) for file in files),
        (*images.skipped, *skipped),
        layout.splits((images.names[int(i)] for i in kept), options.folders),
    )


def _file(images: StoredImages, i: int, layout: Layout, image_state: tuple[int, int]) -> MaskFile:
    image = images.names[i]
    at, files = layout.mask_of[image], layout.files
    name = files.names[at]
    height, width = images.true_size[i].int().tolist()
    return MaskFile(
        name,
        files.root / name,
        layout.images.root / image,
        (height, width),
        (int(files.sizes[at]), int(files.times[at])),
        image_state,
    )
