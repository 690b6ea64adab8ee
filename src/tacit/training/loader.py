"""Which samples belong to which step: a function of the seed and the step, so a run can begin anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tacit.batch import Batch, Step
from tacit.data.source import Sample, Source, collate
from tacit.errors import UsageError
from tacit.rng import Rng

Cut = Callable[[Sample, np.random.Generator], Sample]
At = tuple[int, Tensor] | tuple[int, Tensor, Tensor]
"""A step, positions of its unlabelled samples, and draws of its labelled ones (see `Labelled`)."""


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
class Labelled:
    """The labelled samples of a run: an endless stream of shuffled passes over few samples.

    positions: (n,) of a source. batch_size: drawn at each step, over all processes and parts.

    A draw is a number: pass * n + row. So a sample that occurs twice in a step has two numbers, and its
    two views differ.
    """

    positions: np.ndarray
    batch_size: int

    def draws(self, first: int, count: int, rng: Rng) -> Tensor:
        """Draws `first` to `first + count` of the stream, (count,) int64: a function of the seed alone."""
        n = len(self.positions)
        passes = range(first // n, (first + count - 1) // n + 1)
        stream = torch.cat([k * n + rng("labelled", k).permutation(n) for k in passes])
        begin = first - passes[0] * n
        return stream[begin : begin + count]

    def at(self, draws: Tensor) -> np.ndarray:
        """Positions of the samples drawn."""
        return self.positions[draws.numpy() % len(self.positions)]


class StepSampler(Sampler[At]):
    """Yields (step, positions) for every part of every step from `start` on, for one process.

    With labelled samples it yields (step, positions, draws of labelled ones).
    """

    def __init__(
        self, plan: Plan, rng: Rng, start: int = 0, rank: int = 0, labelled: Labelled | None = None
    ) -> None:
        self.plan, self.rng, self.start, self.rank, self.labelled = plan, rng, start, rank, labelled

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
                if self.labelled is None:
                    yield index, unlabelled
                else:
                    yield index, unlabelled, self._draws(self.labelled, index, k)

    def _draws(self, labelled: Labelled, index: int, part: int) -> Tensor:
        share = labelled.batch_size // (self.plan.accumulate * self.plan.processes)
        first = index * labelled.batch_size + (part * self.plan.processes + self.rank) * share
        return labelled.draws(first, share, self.rng)


class StepData(Dataset[Batch]):
    """A source seen step by step. `cut`, if a method has one, runs here, in the loader's workers."""

    def __init__(self, source: Source, rng: Rng, cut: Cut | None, labelled: Labelled | None = None) -> None:
        self.source, self.rng, self.cut, self.labelled = source, rng, cut, labelled

    def __getitem__(self, at: At) -> Batch:
        step, positions, *draws = at
        batch = self._unlabelled(step, positions)
        return batch if self.labelled is None else self._add(batch, self.labelled, step, draws[0])

    def _add(self, batch: Batch, labelled: Labelled, step: int, draws: Tensor) -> Batch:
        """With labelled samples: their targets, and in `extra` what belongs to them."""
        positions = labelled.at(draws)
        added = self._unlabelled(step, torch.from_numpy(positions))
        extra = {f"labelled_{name}": value for name, value in added.extra.items()}
        return replace(
            batch,
            labelled=added.unlabelled,
            target=torch.from_numpy(self.source.labels[positions]),
            extra={**batch.extra, **extra, "labelled_index": draws},
        )

    def _unlabelled(self, step: int, positions: Tensor) -> Batch:
        if self.cut is None:
            return self.source.batch(positions)
        samples = [self.source[int(i)] for i in positions]
        return collate([self.cut(s, self.rng("cut", step, s.index).numpy()) for s in samples])


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
