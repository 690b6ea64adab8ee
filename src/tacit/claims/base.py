"""What a claim is: an experiment fixed in code before it is run, and an outcome in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tacit.evaluation.statistics import Interval

Verdict = Literal["holds", "does not hold", "inconclusive"]
Parameters = Mapping[str, Any]
Cell = Callable[[Parameters], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a claim's experiment gets.

    cells: runs a function of this module once per parameters, in parallel, each result kept on disk;
        gives the results in the same order.
    folder: for what cells make in common, such as converted data.
    data: where the real data lie that tests and claims share; None where they are absent.
    quick: a small version, which shows that the machinery works and decides nothing.
    """

    cells: Callable[[Cell, Sequence[Parameters]], list[dict[str, Any]]]
    folder: Path
    data: Path | None
    quick: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One question of a claim: the effect with its interval, and what it says."""

    question: str
    effect: Interval
    unit: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment found.

    tables: rows by title, for people. details: everything else that the JSON should hold.
    """

    verdict: Verdict
    because: str
    parts: tuple[Part, ...]
    tables: Mapping[str, Sequence[Mapping[str, str]]]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a paper, and the experiment that tests it.

    design: arms, data, seeds, selection and rule of decision, as they were fixed beforehand.
    version: raise it when the experiment changes; kept cells of another version are not used.
    """

    name: str
    statement: str
    source: str
    design: str
    experiment: Callable[[Setting], Outcome]
    version: int = 1


def verdict_on(effect: Interval, *, relevant: float) -> Verdict:
    """Whether an effect that was claimed to be above 0 is there.

    It holds if the whole interval lies above 0. It does not if the whole interval lies below
    `relevant`, the smallest effect that anyone would care for. Otherwise the data cannot tell.
    """
    if effect.low > 0:
        return "holds"
    return "does not hold" if effect.high < relevant else "inconclusive"


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """All parts must hold; one that does not sinks the whole."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "inconclusive" if "inconclusive" in verdicts else "holds"
