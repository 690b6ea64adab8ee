"""How frozen features are measured by labels: what each kind of labels provides, and the report."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tacit.data.source import UNLABELLED, Source
from tacit.evaluation.features import Embed, extract
from tacit.files import without_nan, write_atomically

FRACTIONS = (0.6, 0.2, 0.2)
"""Training, validation and test part, where the data have no split of their own."""
PIXELS = "raw pixels"
TWIN = "random twin"
LEARNED = "learned"
_REMEDIES = {
    PIXELS: (
        "raw pixels are",
        "train longer or with --preset laptop, choose other --views, or begin at a pretrained --encoder",
    ),
    TWIN: (
        "the random twin is",
        "look for a collapse in the run's report.html, lower --lr, or choose another method (tacit methods)",
    ),
}
"""What to say and to try where a representation that was not learned does better."""
Split = dict[str, np.ndarray]
"""Positions of labelled samples by part: train, validation, test."""
Named = Sequence[tuple[str, Embed]]
"""Representations by name."""


@dataclass(frozen=True, slots=True)
class ProbeReport(ABC):
    """Results in the order learned encoder, random twin, raw pixels; and how they were measured."""

    results: tuple[Any, ...]
    protocol: dict[str, Any]

    def __getitem__(self, representation: str) -> Any:
        return next(r for r in self.results if r.representation == representation)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types, with None for NaN."""
        results = [without_nan(asdict(result)) for result in self.results]
        return {"protocol": without_nan(self.protocol), "results": results}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, json.dumps(self.as_json(), indent=2))

    @abstractmethod
    def __str__(self) -> str: ...

    @property
    def warnings(self) -> list[str]:
        """A line for each of raw pixels and the random twin that does better than what was learned."""
        found = {result.representation: result for result in self.results}
        lines = []
        for name, (subject, remedy) in _REMEDIES.items():
            worse = self.worse(found[LEARNED], found[name]) if {LEARNED, name} <= found.keys() else []
            if worse:
                said = ", ".join(worse)
                lines.append(f"warning: {subject} better than what was learned ({said}): {remedy}")
        return lines

    @abstractmethod
    def worse(self, learned: Any, other: Any) -> list[str]:
        """The measures by which the learned features are below others, each with both numbers."""


class Measure(Protocol):
    """Results of several representations on the same split, in their order."""

    def __call__(
        self, named: Named, source: Source, split: Split, *, k: int = 20, batch_size: int = 256
    ) -> Sequence[Any]:
        """k: neighbours, where some are asked. batch_size: samples encoded at once."""
        ...


@dataclass(frozen=True, slots=True)
class Probing:
    """What a kind of labels provides for `probe`.

    name: of the protocol. split: from source and seed to the parts, and in words where they come from; raises
    UsageError where labels are too few. labels: what of the labels is in the protocol. how: what else is,
    given the number of neighbours. report: makes the report from results and protocol.
    """

    name: str
    split: Callable[[Source, int], tuple[Split, str]]
    measure: Measure
    labels: Callable[[Source], dict[str, Any]]
    how: Callable[[int], dict[str, Any]]
    report: Callable[[tuple[Any, ...], dict[str, Any]], ProbeReport]


def own_parts(source: Source) -> Split:
    """The labelled positions of the data's own parts, without empty ones, by the data's names."""
    own = {name: part[source.labels[part] != UNLABELLED] for name, part in source.splits.items()}
    return {name: part for name, part in own.items() if len(part)}


def features_of(named: Named, source: Source, split: Split, batch_size: int) -> Iterator[tuple[str, Split]]:
    """Each representation's name and its features, (n, D) float32 by part."""
    for name, embed in named:
        yield (
            name,
            {part: extract(embed, source, at, batch_size=batch_size) for part, at in split.items()},
        )
