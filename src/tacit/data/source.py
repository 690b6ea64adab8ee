"""The contract of everything that can be learned from: `Source`, its `Spec` and its `Sample`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.batch import Modality, Samples, Target
from tacit.data.names import Chosen
from tacit.errors import UsageError
from tacit.rng import Rng

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Spec:
    """What the samples of a source are.

    shape: (C, *space) of one sample as `batch` gives it; for images (C, S, S) with S the side of the store,
        for volumes (C, X, Y, Z) of the patch at the centre.
    classes: the classes' names in the order of their numbers, empty without labels.
    target: whether a label is a class, a mask whose values are the classes, or a value.
    white: of images, the value of those with more than 8 bits that became 255; 0 where there are none.
    """

    modality: Modality
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    target: Target = "class"
    white: int = 0


class Skipped(NamedTuple):
    """A file that could not be used, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Sample:
    """One sample as it comes out of a source.

    label: the class, or 0 where there is another target; -1 where the sample is unlabelled: then there is no
        target of any kind. target: mask (*space) int64, value () float32 or keypoints (K, 3) float32.
    length: valid frames of `data`, where samples are ragged; by default all. extra: what `Samples.extra`
        collects, one row each.
    """

    data: Tensor  # (C, *space)
    index: int
    label: int = UNLABELLED
    name: str = ""
    target: Tensor | None = None
    length: int | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)


def collate(samples: Sequence[Sample]) -> Samples:
    """Samples as one batch; with targets, if all have one.

    Those that differ in their last axis alone, as recordings do, are padded with 0 at its end, and `length`
    says how many frames are their own.

    Raises:
        ValueError: shapes differ in another axis.
    """
    shapes = {sample.data.shape for sample in samples}
    ragged = len(shapes) > 1 or any(sample.length is not None for sample in samples)
    targets = [sample.target for sample in samples if sample.target is not None]
    return Samples(
        _padded([sample.data for sample in samples]) if ragged else torch.stack([s.data for s in samples]),
        index=torch.tensor([sample.index for sample in samples]),
        target=torch.stack(targets) if len(targets) == len(samples) else None,
        length=torch.tensor([s.data.shape[-1] if s.length is None else s.length for s in samples])
        if ragged
        else None,
        extra={key: torch.stack([s.extra[key] for s in samples]) for key in samples[0].extra},
    )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    if len({part.shape[:-1] for part in parts}) > 1:
        shapes = ", ".join(str(tuple(shape)) for shape in sorted({part.shape for part in parts}))
        raise ValueError(f"samples of shapes {shapes} make no batch: only their last axis may differ")
    longest = max(part.shape[-1] for part in parts)
    return torch.stack([F.pad(part, (0, longest - part.shape[-1])) for part in parts])


class Source:
    """A map-style data set: `len(source)`, `source[i] -> Sample`, `source.batch(index) -> Samples`.

    names: (N,) one name per sample (for files the path below the folder that was opened).
    labels: (N,) int64 class numbers; -1 marks an unlabelled sample. Where labels are masks or values: 0 if
        there is one.
    values: (N,) float64 where labels are values, NaN for unlabelled samples; else None.
    groups: (N,) int64 of samples that belong together, such as a patient's, or None.
    table: columns beside the samples, such as site or age, each (N,).
    splits: positions by split name ("train", "val", "test") where the source itself brings a split.
    fingerprint: hex digest of the content, the same wherever the data lie.
    skipped: files left out because they could not be used.
    label_note, group_note: in words, what was read where labels, values or groups come from a file; else
    empty. notes: what a reader could not expect.
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
        self.values: np.ndarray | None = None
        self.groups: np.ndarray | None = None
        self.table: dict[str, np.ndarray] = {}
        self.label_note = self.group_note = ""
        self.notes: tuple[str, ...] = ()

    @property
    def understood(self) -> str:
        """What the labels were taken for, in words; empty where there is nothing to say."""
        return ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Sample:
        raise NotImplementedError

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Samples:
        """The samples at these positions as one batch; a fast path that overrides it gives no targets."""
        return collate([self[int(i)] for i in index])

    @property
    def labelled(self) -> np.ndarray:
        """Positions that carry a label, ascending."""
        return np.flatnonzero(self.labels != UNLABELLED)

    @property
    def mask_values(self) -> Sequence[int]:
        """The classes that the masks hold, ascending; where this is unknown all that have a name."""
        return range(len(self.spec.classes))

    @property
    def training(self) -> np.ndarray:
        """Positions that may be learned from, ascending: the training split, all where there is no split.

        Raises:
            UsageError: the data bring other splits alone.
        """
        if self.splits and "train" not in self.splits:
            raise UsageError(
                f"the data have no training part, only {' and '.join(self.splits)}: open the folder above, "
                "or, if they are no splits, pass --folders classes"
            )
        return self.splits.get("train", np.arange(len(self)))

    def targets(self, positions: np.ndarray) -> Tensor:
        """What is learned of labelled samples, where the samples themselves do not bring it.

        (n,) int64 classes, or float32 values.
        """
        if self.values is not None:
            return torch.from_numpy(self.values[positions].astype(np.float32))
        return torch.from_numpy(self.labels[positions])

    def hiding(self, known: np.ndarray) -> Source:
        """The same source without the labels of all samples but those at these positions."""
        seen = copy.copy(self)
        seen.labels = np.full(len(self), UNLABELLED, np.int64)
        seen.labels[known] = self.labels[known]
        if self.values is not None:
            seen.values = np.full(len(self), np.nan)
            seen.values[known] = self.values[known]
        return seen

    def folds(self, by: int | str, rng: Rng) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions to learn from and to test on, fold by fold, as `folds_of`; no group is on both sides."""
        from tacit.data.folds import folds_of

        return folds_of(self.labels, self.groups, self.table, by, rng)

    def subset(self, index: np.ndarray) -> Source:
        """The source restricted to these positions. `Sample.index` and `Samples.index` keep the parent's."""
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
        self.values = None if parent.values is None else parent.values[index]
        self.groups = None if parent.groups is None else parent.groups[index]
        self.table = {name: column[index] for name, column in parent.table.items()}
        self.label_note, self.group_note = parent.label_note, parent.group_note
        self.notes = parent.notes

    def __getitem__(self, i: int) -> Sample:
        sample = self.parent[int(self.index[i])]
        sample.label = int(self.labels[i])  # which can have been hidden, or replaced
        if sample.label == UNLABELLED or self.spec.target != self.parent.spec.target:
            sample.target = None
        return sample

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Samples:
        """The parent's batch at the chosen positions."""
        return self.parent.batch(self.index[np.asarray(index)])


def rooted(source: Source, position: int) -> tuple[Source, int]:
    """The source that is no part of another, and the same sample's position there."""
    while isinstance(source, Subset):
        position = int(source.index[position])
        source = source.parent
    return source, position
