"""All that follows from the kind of target, said once per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tacit.data.budget import Budget
from tacit.data.source import Sample, Source
from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.tasks.online import OnlineProbe
from tacit.tasks.predictor import Predictor
from tacit.tasks.probing import Probing


class Network(NamedTuple):
    """What predicts: an encoder with a card, and a head on what it gives."""

    encoder: nn.Module
    head: nn.Module


class Taught(Protocol):
    """What a task asks of a method that learns labels."""

    encoder: nn.Module

    @property
    def network(self) -> Network:
        """What is evaluated, and kept if nothing better is found."""
        ...

    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A sample as a training step sees it, before views."""
        ...


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose labels are learned from, in the words of `fit`.

    labels_per_class: of each class. labelled: samples in all. label_fraction: a share of the labels there
    are. held_out: held-out labels per label that is learned from.
    """

    labels_per_class: int | None = None
    labelled: int | None = None
    label_fraction: float | None = None
    held_out: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What `predict` was asked for, beside the run and the data that were opened.

    where: places that the data came from. out: file or folder to write; None for a table in memory.
    """

    out: Path | None
    where: tuple[Path, ...] = ()
    batch_size: int = 256
    overlap: float | None = None

    @property
    def folder(self) -> Path:
        """The folder to write.

        Raises:
            UsageError: there is none.
        """
        if self.out is None:
            raise UsageError("masks are written to a folder: name it with out")
        return self.out


@dataclass(frozen=True, slots=True)
class Predictions:
    """What `predict` did.

    path: the file or folder that was written, None where nothing was. samples: how many. card: the
    predictor's. grades: where labels are known, how it did on them. said: in words, what it did. notes:
    what a user should know. what: is in `path`, in words. table: the rows (a pyarrow table), where they were
    not written.
    """

    path: Path | None
    samples: int
    card: Any
    grades: Any = None
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    what: str = "rows"
    table: Any = None

    def frame(self) -> Any:
        """The rows as a frame of pandas.

        Raises:
            UsageError: they were written to a file; or pandas is not installed.
        """
        if self.table is None:
            raise UsageError(f"the rows are in {self.path}: read them there, or predict without out")
        try:
            return self.table.to_pandas()
        except ModuleNotFoundError:
            raise UsageError("a frame needs the package 'pandas': pip install pandas") from None


class Task(ABC):
    """A kind of target. Each has a folder here, whose module `task` has an instance as `TASK`.

    target: its name. plural: in messages. score: of the online probe, the higher the better; the best
    checkpoint is chosen by it. scale: what it is multiplied by in tables. measures: titles of the columns of
    a curve, by name in `grade`; the score's first. amount: the argument of `fit` that says how many labels
    are learned from. counted: what a budget counts, in words. words: arguments of `predict` that no other
    kind has. written: what `predict --out` names. dense: whether the encoder must give maps.

    rivals, budgets, batch_size, mu: what a curve compares where nothing else is asked for: methods, numbers
    of labels, unlabelled samples of a step, and how many of them for each labelled one. probing: how frozen
    features are measured by such labels; None where they cannot be.
    """

    target: ClassVar[str]
    plural: ClassVar[str]
    score: ClassVar[str]
    scale: ClassVar[float] = 100.0
    measures: ClassVar[Mapping[str, str]]
    amount: ClassVar[str]
    counted: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()
    written: ClassVar[str] = "FILE.csv"
    dense: ClassVar[bool] = False
    rivals: ClassVar[tuple[str, ...]] = ()
    budgets: ClassVar[tuple[int, ...]]
    batch_size: ClassVar[int] = 64
    mu: ClassVar[float] = 2.0
    probing: ClassVar[Probing | None] = None

    @abstractmethod
    def check(self, source: Source, slug: str) -> None:
        """Refuse data without such labels. slug: of the method that would learn them.

        Raises:
            UsageError: says where labels are looked for.
        """

    @abstractmethod
    def draw(
        self, source: Source, train: np.ndarray, labels: Labels, rng: Rng, validation: np.ndarray | None
    ) -> Budget:
        """Whose labels are learned from and held out; `validation`: positions that the data hold out.

        Raises:
            UsageError: too few labels, or an invalid budget.
        """

    @abstractmethod
    def count(self, source: Source, positions: np.ndarray) -> dict[str, int]:
        """How many labels these are, by name."""

    def doubts(self, source: Source, budget: Budget) -> list[str]:
        """What a user should know of the labels that were drawn."""
        return []

    @abstractmethod
    def watch(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        method: Taught,
        *,
        learned: np.ndarray,
        held_out: np.ndarray,
    ) -> OnlineProbe:
        """What is measured while a method learns. learned, held_out: positions with labels."""

    @abstractmethod
    def floors(
        self,
        source: Source,
        learned: np.ndarray,
        test: np.ndarray,
        encoder: nn.Module,
        device: torch.device | str,
    ) -> dict[str, dict[str, Any]]:
        """What the labels at `learned` give on the samples at `test` without learning, by name of the floor.

        Each as `grade` measures, `score` at least. encoder: as the run begins with it; its mode is kept.
        """

    @abstractmethod
    def calibrate(self, network: Network, source: Source, held_out: np.ndarray) -> Predictor:
        """The predictor of a finished method, graded and calibrated on held-out labels.

        source: not a subset.
        """

    @abstractmethod
    def restore(self, encoder: nn.Module, card: Mapping[str, Any], state: Mapping[str, Tensor]) -> Predictor:
        """A predictor from what `Predictor.save` wrote.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: it is damaged.
        """

    @abstractmethod
    def grade(
        self, predictor: Predictor, source: Source, positions: np.ndarray, device: torch.device | str
    ) -> dict[str, Any]:
        """How a predictor does on labelled samples, as plain JSON types; `score` is one of the names."""

    @abstractmethod
    def write(
        self, predictor: Predictor, source: Source, asked: Asked, device: torch.device | str
    ) -> Predictions:
        """Predict every sample and write it down.

        Raises:
            UsageError: labels that the predictor does not know, or a place that cannot be written.
        """

    @abstractmethod
    def check_out(self, asked: Asked) -> None:
        """Refuse a place to write before anything is opened.

        Raises:
            UsageError: another ending, or a folder where a file is wanted.
        """
