"""Which samples belong to which step: a function of the seed and the step, so a run can begin anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tacit.batch import Batch, Samples, Step
from tacit.data.source import UNLABELLED, Sample, Source, collate
from tacit.errors import UsageError
from tacit.rng import Rng

Cut = Callable[[Sample, np.random.Generator], Sample]
At = tuple[Any, ...]
"""A step, positions of its unlabelled samples, and draws of its streams: labelled samples, then images."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The clock of a run: how many samples, steps and epochs, and how a step is split.

    A step takes `batch_size` samples: `processes` x `accumulate` parts of equal size. The last,
    incomplete batch of an epoch is left out.
    """

    samples: int
    batch_size: int
    epochs: int
    accumulate: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"{self.samples} sample(s) are too few: at least 2 are needed")
        if self.samples < self.batch_size:
            raise UsageError(
                f"{self.samples} samples are fewer than one batch of {self.batch_size}: "
                f"pass --batch-size {self.samples} or less"
            )
        parts = self.accumulate * self.processes
        if self.batch_size % parts or self.batch_size // parts < 2:
            raise UsageError(
                f"a batch of {self.batch_size} cannot be split into {self.processes} process(es) x "
                f"{self.accumulate} accumulated part(s) of equal size, 2 samples at least"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the samples."""
        return self.samples // self.batch_size

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def step(self, index: int) -> Step:
        """Where the run stands at optimiser step `index`."""
        return Step(index, self.total, index // self.steps_per_epoch, self.epochs)


@dataclass(frozen=True, slots=True)
class Stream:
    """Samples beside the unlabelled ones, such as few labelled ones: an endless stream of shuffled passes.

    positions: (n,) of a source. batch_size: drawn at each step, over all processes and parts. name: of the
    stream's order.

    A draw is a number: pass * n + row. So a sample that occurs twice in a step has two numbers, and its
    two views differ.
    """

    positions: np.ndarray
    batch_size: int
    name: str = "labelled"

    def draws(self, first: int, count: int, rng: Rng) -> Tensor:
        """Draws `first` to `first + count` of the stream, (count,) int64: a function of the seed alone."""
        n = len(self.positions)
        passes = range(first // n, (first + count - 1) // n + 1)
        stream = torch.cat([k * n + rng(self.name, k).permutation(n) for k in passes])
        begin = first - passes[0] * n
        return stream[begin : begin + count]

    def at(self, draws: Tensor) -> np.ndarray:
        """Positions of the samples drawn."""
        return self.positions[draws.numpy() % len(self.positions)]


@dataclass(frozen=True, slots=True)
class Beside:
    """Images that are learned from beside another source's samples."""

    source: Source
    stream: Stream


class StepSampler(Sampler[At]):
    """Yields (step, positions, draws of each stream) for every part of every step from `start` on.

    It does so for one process.
    """

    def __init__(
        self, plan: Plan, rng: Rng, start: int = 0, rank: int = 0, streams: Sequence[Stream] = ()
    ) -> None:
        self.plan, self.rng, self.start, self.rank, self.streams = plan, rng, start, rank, tuple(streams)

    def __len__(self) -> int:
        return (self.plan.total - self.start) * self.plan.accumulate

    def __iter__(self) -> Iterator[At]:
        plan = self.plan
        order, epoch = self.rng("shuffle", 0).permutation(0), -1
        part = plan.batch_size // plan.accumulate
        share = part // plan.processes
        for index in range(self.start, plan.total):
            if (now := index // plan.steps_per_epoch) != epoch:
                epoch, order = now, self.rng("shuffle", now).permutation(plan.samples)
            begin = (index % plan.steps_per_epoch) * plan.batch_size
            for k in range(plan.accumulate):
                first = begin + k * part + self.rank * share
                unlabelled = order[first : first + share]
                yield index, unlabelled, *(self._draws(stream, index, k) for stream in self.streams)

    def _draws(self, stream: Stream, index: int, part: int) -> Tensor:
        share = stream.batch_size // (self.plan.accumulate * self.plan.processes)
        first = index * stream.batch_size + (part * self.plan.processes + self.rank) * share
        return stream.draws(first, share, self.rng)


class StepData(Dataset[Batch]):
    """A source seen step by step. `cut`, if a method has one, runs here, in the loader's workers."""

    def __init__(
        self,
        source: Source,
        rng: Rng,
        cut: Cut | None,
        labelled: Stream | None = None,
        images: Beside | None = None,
    ) -> None:
        self.source, self.rng, self.cut, self.labelled, self.images = source, rng, cut, labelled, images

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What the sampler must draw from, in this order."""
        images = self.images.stream if self.images else None
        return tuple(stream for stream in (self.labelled, images) if stream is not None)

    def __getitem__(self, at: At) -> Batch:
        step, positions, *draws = at
        batch = Batch(self._read(positions, self.rng("cut", step), labelled=False))
        if self.labelled is not None:
            batch.labelled = self._labelled(self.labelled, draws.pop(0))
        if self.images is not None:
            drawn = draws.pop(0)
            found = self.images.source.batch(self.images.stream.at(drawn))
            batch.beside = replace(found, index=drawn)
        return batch

    def _labelled(self, stream: Stream, draws: Tensor) -> Samples:
        """The labelled samples drawn, with their targets."""
        positions = stream.at(draws)
        found = self._read(torch.from_numpy(positions), self.rng("labelled cut"), labelled=True, draws=draws)
        target = self.source.targets(positions) if found.target is None else found.target
        return replace(found, index=draws, target=target)

    def _read(self, positions: Tensor, rng: Rng, *, labelled: bool, draws: Tensor | None = None) -> Samples:
        """The samples at these positions, cut if the method cuts; without labels unless they are asked for.

        draws: numbers that stand for the samples in `rng`; by default their positions in the source.
        """
        if self.cut is None:
            found = self.source.batch(positions)
            return found if labelled else replace(found, target=None)
        cut = []
        for k, i in enumerate(positions.tolist()):
            sample = self.source[i]
            if not labelled:
                sample.label, sample.target = UNLABELLED, None
            number = sample.index if draws is None else int(draws[k])
            cut.append(self.cut(sample, rng(number).numpy()))
        return collate(cut)


def step_loader(data: StepData, sampler: StepSampler, *, workers: int, pin_memory: bool) -> DataLoader[Batch]:
    """A loader that yields one ready Batch per part of a step."""
    return DataLoader(
        data,
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=False,
    )
