"""What `fit` can be asked for, by concern; flat for people, in the words of `fit`'s arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args

from torch import nn

from tacit.data.memory import Data, taken
from tacit.data.splits import Folders
from tacit.errors import UsageError, unknown
from tacit.evaluation.subject import OnBadFile, pick_device
from tacit.methods.recipe import Scaling, Schedule
from tacit.tasks.base import Labels
from tacit.training.keeper import SAVE_EVERY

_MOST_WORKERS = 256  # processes; a configuration could ask for more than a machine bears

Precision = Literal["auto", "32", "bf16"]
OnCollapse = Literal["stop", "warn"]
From = Literal["default", "paper"]
"""Where a method's numbers come from: chosen for short runs on ordinary data, or its paper."""
Preset = Literal["laptop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is learned from, and where its labels are."""

    data: Data
    images: str | None = None
    labels: str | None = None
    label_column: str | None = None
    file_column: str | None = None
    masks: str | None = None
    values: str | None = None
    column: str | None = None
    groups: str | None = None
    folders: Folders | None = None
    on_bad_file: OnBadFile = "stop"
    cache: str | None = None

    def check(self) -> None:
        """Refuse data without a name."""
        if self.data is None or not str(self.data).strip():
            raise UsageError(
                "the data are not named: pass --data FOLDER (or a .npz, hf:NAME, digits, mnist5k)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeing:
    """How the encoder sees the data; each kind of data has words of its own among these."""

    size: int | None = None
    patch: str | tuple[int, int, int] | None = None
    window: str | None = None
    spacing: str | tuple[float, float, float] | None = None
    channels: int | None = None

    def check(self) -> None:
        """Refuse pictures that nothing can be seen in."""
        _at_least("size", self.size, 4)

    def words(self) -> dict[str, Any]:
        """As `Form` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What learning begins with."""

    encoder: str | nn.Module | None = None
    small_input: bool | None = None
    preset: Preset | None = None
    pretrain: str | None = None
    pretrain_epochs: int | None = None
    pretrain_batch_size: int | None = None

    def check(self) -> None:
        """Nothing that does not need the method or the data."""

    @property
    def spec(self) -> str | nn.Module:
        """The encoder, which has been chosen."""
        assert self.encoder is not None
        return self.encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """Where a method's views and numbers come from."""

    views: str | None = None
    recipe: From = "default"

    def check(self) -> None:
        """Refuse an unknown origin."""
        if self.recipe not in get_args(From):
            raise unknown("recipe", str(self.recipe), get_args(From))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be other than in the method's recipe, field by field."""

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    lr_scaling: Scaling | None = None
    schedule: Schedule | None = None
    warmup: float | None = None
    clip: float | None = None
    mu: float | None = None

    def check(self) -> None:
        """Nothing: the recipe checks itself."""

    def given(self) -> dict[str, Any]:
        """Those that are asked for."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What computes: so many devices on each of so many computers."""

    accumulate: int = 1
    precision: Precision = "auto"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None
    seed: int = 0

    @property
    def processes(self) -> int:
        """How many learn together, one for each device."""
        return self.devices * self.nodes

    def check(self) -> None:
        """Refuse what is not here."""
        for name, least in (("accumulate", 1), ("devices", 1), ("nodes", 1), ("workers", 0)):
            _at_least(name, getattr(self, name), least)
        if self.workers is not None and self.workers > _MOST_WORKERS:
            raise UsageError(f"workers must be {_MOST_WORKERS} at most, not {self.workers}")
        if self.precision not in get_args(Precision):
            raise unknown("precision", str(self.precision), get_args(Precision))
        pick_device(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """The run folder, and what happens when something goes wrong."""

    out: str | os.PathLike[str] | None = None
    resume: bool = False
    save_every: float = SAVE_EVERY
    on_collapse: OnCollapse = "stop"
    quiet: bool = False

    def check(self) -> None:
        """Refuse a folder without a name, and times before now."""
        if self.out is not None and not str(self.out).strip():
            raise UsageError("--out is empty: name a folder")
        if self.on_collapse not in get_args(OnCollapse):
            raise unknown("on_collapse", str(self.on_collapse), get_args(OnCollapse))
        if not self.save_every >= 0:
            raise UsageError(f"save_every must be at least 0 seconds, not {self.save_every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All of it. method: the slug. own: options of the method itself, by name."""

    method: str
    reading: Reading
    seeing: Seeing = field(default_factory=Seeing)
    labels: Labels = field(default_factory=Labels)
    start: Start = field(default_factory=Start)
    viewing: Viewing = field(default_factory=Viewing)
    changes: Changes = field(default_factory=Changes)
    machine: Machine = field(default_factory=Machine)
    care: Care = field(default_factory=Care)
    own: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Self:
        """From the arguments of `fit` by name, `options` being the method's own."""
        data, labels = taken(words["data"], words.get("labels"))
        words = {**words, "data": data, "labels": labels}
        parts = {
            part: kind(**{f.name: words[f.name] for f in fields(kind) if f.name in words})
            for part, kind in CONCERNS.items()
        }
        return cls(method=words["method"], own=dict(words.get("options") or {}), **parts)

    def check(self) -> None:
        """Refuse values that would fail later, when a folder was already begun.

        Raises:
            UsageError: names the first one.
        """
        for part in CONCERNS:
            checked = getattr(self, part)
            if hasattr(checked, "check"):
                checked.check()

    def changed(self, **words: Any) -> Self:
        """The same with other values, by the words of `fit`."""
        parts: dict[str, Any] = {}
        for part, kind in CONCERNS.items():
            own = {f.name: words.pop(f.name) for f in fields(kind) if f.name in words}
            if own:
                parts[part] = replace(getattr(self, part), **own)
        assert not words, f"no such words: {words}"
        return replace(self, **parts)

    def with_own(self, own: Mapping[str, Any]) -> Self:
        """The same with other options of the method."""
        return replace(self, own=dict(own))

    def words(self) -> dict[str, Any]:
        """All but the method and its own options, by the words of `fit`."""
        return {
            f.name: getattr(getattr(self, part), f.name)
            for part, kind in CONCERNS.items()
            for f in fields(kind)
        }


CONCERNS: dict[str, type[Any]] = {
    "reading": Reading,
    "seeing": Seeing,
    "labels": Labels,
    "start": Start,
    "viewing": Viewing,
    "changes": Changes,
    "machine": Machine,
    "care": Care,
}
"""The parts of `Options`, in the order in which people meet them."""


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")
