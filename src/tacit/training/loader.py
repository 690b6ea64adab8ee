"""Which samples belong to which step: a function of the seed and the step, so a run can begin anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tacit.batch import Batch, Step
from tacit.data.source import Sample, Source, collate
from tacit.errors import UsageError
from tacit.rng import Rng

Cut = Callable[[Sample, np.random.Generator], Sample]


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


class StepSampler(Sampler[tuple[int, Tensor]]):
    """Yields (step, positions) for every part of every step from `start` on, for one process."""

    def __init__(self, plan: Plan, rng: Rng, start: int = 0, rank: int = 0) -> None:
        self.plan, self.rng, self.start, self.rank = plan, rng, start, rank

    def __len__(self) -> int:
        return (self.plan.total - self.start) * self.plan.accumulate

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
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
                yield index, order[first : first + share]


class StepData(Dataset[Batch]):
    """A source seen step by step. `cut`, if a method has one, runs here, in the loader's workers."""

    def __init__(self, source: Source, rng: Rng, cut: Cut | None) -> None:
        self.source, self.rng, self.cut = source, rng, cut

    def __getitem__(self, at: tuple[int, Tensor]) -> Batch:
        step, positions = at
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
