"""The contract of everything that can be learned from: `Source`, its `Spec` and its `Sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Batch, Modality, Target
from tacit.data.names import Chosen

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Spec:
    """What the samples of a source are.

    shape: (C, *space) of one sample as `batch` gives it; for images (C, S, S) with S the side of the store,
        for volumes (C, X, Y, Z) of the patch at the centre.
    classes: the classes' names in the order of their numbers, empty without labels.
    target: whether a label is a class, or a mask whose values are the classes.
    """

    modality: Modality
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    target: Target = "class"


class Skipped(NamedTuple):
    """A file that could not be used, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Sample:
    """One sample as it comes out of a source.

    extra: what the batch's `extra` collects, one row each. mask: (*space) int64, where the label is one.
    """

    data: Tensor  # (C, *space)
    index: int
    label: int = UNLABELLED
    name: str = ""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one shape as one unlabelled batch; with masks, if all have one, as its target."""
    extra = {key: torch.stack([s.extra[key] for s in samples]) for key in samples[0].extra}
    masks = [s.mask for s in samples if s.mask is not None]
    return Batch(
        unlabelled=torch.stack([s.data for s in samples]),
        index=torch.tensor([s.index for s in samples]),
        target=torch.stack(masks) if len(masks) == len(samples) else None,
        extra=extra,
    )


class Source:
    """A map-style data set: `len(source)`, `source[i] -> Sample`, `source.batch(index) -> Batch`.

    names: (N,) one name per sample (for files the path below the folder that was opened).
    labels: (N,) int64 class numbers; -1 marks an unlabelled sample. Where labels are masks: 0 if there is
        one.
    groups: (N,) int64 of samples that belong together, such as a patient's, or None.
    splits: positions by split name ("train", "val", "test") where the source itself brings a split.
    fingerprint: hex digest of the content, the same wherever the data lie.
    skipped: files left out because they could not be used.
    """

    def __init__(
        self,
        spec: Spec,
        names: Sequence[str],
        labels: np.ndarray | None = None,
        splits: Mapping[str, np.ndarray] | None = None,
        fingerprint: str = "",
        skipped: Sequence[Skipped] = (),
    ) -> None:
        self.spec = spec
        self.names = names
        self.labels = np.full(len(names), UNLABELLED, np.int64) if labels is None else labels
        self.splits = dict(splits or {})
        self.fingerprint = fingerprint
        self.skipped = tuple(skipped)
        self.groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Sample:
        raise NotImplementedError

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Batch:
        """The samples at these positions as one unlabelled batch. Sources with a fast path override it."""
        return collate([self[int(i)] for i in index])

    @property
    def labelled(self) -> np.ndarray:
        """Positions that carry a label, ascending."""
        return np.flatnonzero(self.labels != UNLABELLED)

    def subset(self, index: np.ndarray) -> Source:
        """The source restricted to these positions. `Sample.index` and `Batch.index` keep the parent's."""
        return Subset(self, np.asarray(index, np.int64))


class Subset(Source):
    """Some positions of another source; nothing is copied."""

    def __init__(self, parent: Source, index: np.ndarray) -> None:
        super().__init__(
            spec=replace(parent.spec),
            names=Chosen(parent.names, index),
            labels=parent.labels[index],
            fingerprint=parent.fingerprint,
            skipped=parent.skipped,
        )
        self.parent = parent
        self.index = index
        self.groups = None if parent.groups is None else parent.groups[index]

    def __getitem__(self, i: int) -> Sample:
        return self.parent[int(self.index[i])]

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Batch:
        """The parent's batch at the chosen positions."""
        return self.parent.batch(self.index[np.asarray(index)])
