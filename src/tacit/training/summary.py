"""What a run came to, in a few lines and a file: which network was kept, and whether it beats the floors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import sqrt
from pathlib import Path

from tacit.checks import check_number, check_type, is_count, needed, wrong
from tacit.errors import TacitError
from tacit.files import without_nan, write_atomically
from tacit.tasks.registry import all_tasks
from tacit.untrusted import first_line, mapping, read_json

FILE = "summary.json"


def _name(score: str) -> str:
    """Of a measure, in words."""
    titles = {task.score: task.measures[task.score] for task in all_tasks().values()}
    return {"knn": "kNN accuracy", **titles}.get(score, score).removesuffix(" in %")


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores are 1 at best.

    score: name of the measure. held_out: number of held-out samples by which it is measured.
    candidates: score of each network that could be kept; empty where nothing was held out. kept: its name.
    floors: score of what needs no learning, with the same labels and on the same samples, by name.
    statistics: what was seen of BatchNorm's running statistics, where they did not fit.
    remedies: what is most likely to help a run below a floor, best first.
    """

    score: str
    held_out: int
    kept: str
    candidates: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    statistics: str = ""
    remedies: tuple[str, ...] = ()

    @property
    def above(self) -> str | None:
        """The best of the floors that the run lies below, if any."""
        own = self.candidates.get(self.kept)
        known = [name for name, value in self.floors.items() if value == value]
        best = max(known, key=lambda name: self.floors[name], default=None)
        return best if own is not None and best is not None and own < self.floors[best] else None

    @property
    def unsure(self) -> str | None:
        """The best floor, if the run lies above it by less than held-out samples can tell.

        That is one standard error of a share over so many samples (our choice; of Dice and R2 it is the order
        of magnitude).
        """
        own = self.candidates.get(self.kept)
        known = [name for name, value in self.floors.items() if value == value]
        if own is None or not known or self.above is not None or not self.held_out:
            return None
        best = max(known, key=lambda name: self.floors[name])
        error = sqrt(max(own * (1 - own), 0.05) / self.held_out)
        return best if own - self.floors[best] < error else None

    def lines(self) -> list[str]:
        """The summary, for people; the last line says what a run below a floor can try."""
        name = _name(self.score)
        text = []
        if self.candidates:
            others = [f"{other} {_percent(v)}" for other, v in self.candidates.items() if other != self.kept]
            beside = f" ({'; '.join(others)})" if others else ""
            own = _percent(self.candidates[self.kept])
            text.append(
                f"held out: {name} {own} of the {self.kept} network, which is kept{beside}; "
                f"{self.held_out} samples"
            )
        if self.floors:
            floors = ", ".join(f"{floor} {_percent(v)}" for floor, v in self.floors.items())
            text.append(f"floors:   with the same labels: {floors}")
        if self.unsure is not None:
            text.append(
                f"note:     {self.held_out} held-out samples are too few to tell this run from "
                f"'{self.unsure}': hold out more (--held-out), or grade it on a test set"
            )
        if self.statistics:
            text.append(f"note:     {self.statistics}")
        if self.above is not None:
            own, floor = _percent(self.candidates[self.kept]), _percent(self.floors[self.above])
            text.append(
                f"warning:  this run is below '{self.above}' ({own} against {floor}), which needs no "
                f"learning; "
                f"try {' or '.join(self.remedies[:2]) or 'more labels'}"
            )
        return text

    def save(self, folder: Path) -> None:
        """Write `summary.json`."""
        write_atomically(folder / FILE, json.dumps(without_nan(asdict(self)), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Summary | None:
        """The summary of a run, None if it has none.

        Raises:
            TacitError: the file is damaged.
        """
        if not (folder / FILE).is_file():
            return None
        try:
            read = mapping(read_json(folder / FILE), "it")
            known = {f.name: needed(read, f.name) for f in fields(cls)}  # a later version may have more
            for name in ("score", "kept", "statistics"):
                _check_line(name, known[name])
            check_number("held_out", known["held_out"], is_count, "a whole number of at least 0")
            for name in ("candidates", "floors"):
                scores = mapping(known[name], f"its {name}")
                known[name] = {key: _number(f"{name}.{key}", value) for key, value in scores.items()}
            if known["candidates"] and known["kept"] not in known["candidates"]:
                raise wrong("kept", known["kept"], "one of its candidates")
            check_type("remedies", known["remedies"], list, "a list of texts")
            known["remedies"] = tuple(known["remedies"])
            for word in (*known["remedies"], *known["candidates"], *known["floors"]):
                _check_line("remedies, candidates or floors", word)
            return cls(**known)
        except (OSError, ValueError) as error:
            raise TacitError(f"{folder / FILE} is damaged: {first_line(error)}") from None


def _check_line(name: str, value: object) -> None:
    """Refuse what is not a text of one line, as people read it."""
    if not isinstance(value, str) or not value.isprintable():
        raise wrong(name, value, "a text of one line")


def _number(name: str, value: float | None) -> float:
    """As it was saved: null stands for what is not a number."""
    if value is None:
        return float("nan")
    check_number(name, value, lambda number: True, "a finite number")
    return value


def _percent(value: float) -> str:
    return "unknown" if value != value else f"{100 * value:.1f} %"
