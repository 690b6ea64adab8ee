"""How an encoder sees one kind of data: all that decides how a file becomes a tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from math import prod
from typing import Any, ClassVar, Self, get_args

import numpy as np
from torch import Tensor

from tacit.batch import Modality, Samples
from tacit.checks import check_number, check_type, check_whole, needed, wrong
from tacit.data.canvas import Canvas
from tacit.data.source import Sample, Source, Spec
from tacit.errors import TacitError, UsageError

_MOST_CHANNELS = 65_536
_LARGEST_SAMPLE = 2**28  # numbers, which take 1 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Form(ABC):
    """A part of an encoder's card. A kind of data has a subclass, `FORM` of `tacit.data.KIND.form`.

    Plain JSON types and tuples of them. 0, "" or () where the data decide, as long as nothing was learned.

    channels: of the input. mean, std: per channel, of inputs in [0, 1]; the encoder sees (x - mean) / std.
    """

    modality: ClassVar[Modality]
    usual: ClassVar[tuple[float, float]]  # mean and std where nobody gives them
    channels_last: ClassVar[bool] = False  # whether convolutions on the CPU are faster in that memory format
    words: ClassVar[tuple[str, ...]] = ("channels",)  # arguments of `fit` that mean something to it
    pretraining: ClassVar[str] = ""  # slug of the method by which an encoder should learn first
    light: ClassVar[str] = ""  # spec of an encoder that a laptop trains
    light_dense: ClassVar[str] = ""  # the same of one that gives maps
    instead: ClassVar[str] = ""  # what users can do whose method is for another kind, in words

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def make(cls, channels: int, mean: Any = None, std: Any = None, **sides: Any) -> Self:
        """A form whose mean and std are the usual ones unless they are given; what is None is left open."""
        usual = [(value,) * channels for value in cls.usual]
        own = {f.name for f in fields(cls)}
        given = {name: value for name, value in sides.items() if value is not None and name in own}
        return cls(channels=channels, mean=mean or usual[0], std=std or usual[1], **given)

    @classmethod
    def of(cls, form: Form) -> Self:
        """The form itself, for those who need this kind.

        Raises:
            UsageError: it is of another kind.
        """
        if not isinstance(form, cls):
            raise UsageError(f"the encoder sees {form.modality}s, and here it must see {cls.modality}s")
        return form

    @property
    @abstractmethod
    def sides(self) -> dict[str, Any]:
        """The arguments of `build_encoder` that say how large the input is."""

    @classmethod
    @abstractmethod
    def sides_of(cls, spec: Spec, side: int | None = None) -> dict[str, Any]:
        """The same for data that nothing was learned from. side: in pixels, if it is given or fixed."""

    @property
    @abstractmethod
    def opening(self) -> dict[str, Any]:
        """The arguments of `open_source` by which other data become tensors as the learned ones did."""

    @abstractmethod
    def opening_with(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The same with what a user asks for by the names of `fit`'s arguments.

        Raises:
            UsageError: the encoder cannot see them so.
        """

    @classmethod
    @abstractmethod
    def refuse(cls, asked: Mapping[str, Any]) -> None:
        """Refuse what a user asks for that means nothing to this kind of data.

        Raises:
            UsageError: something does.
        """

    @classmethod
    def spelled(cls, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a user asks for by these words, in one spelling, for run.yaml."""
        return dict(asked)

    @classmethod
    def measured(cls, source: Source) -> dict[str, Any]:
        """Mean and std of a source, for encoders that have learned nothing; {} for the usual ones."""
        return {}

    @abstractmethod
    def settled(self, source: Source) -> Self:
        """The same with what is still open decided by the source that is learned from."""

    def check(self, spec: Spec) -> None:
        """Refuse data that the encoder was not made for.

        Raises:
            UsageError: another kind, or other channels.
        """
        if spec.modality != self.modality:
            raise UsageError(f"the encoder was learned from {self.modality}s, the data are {spec.modality}s")
        if spec.shape[0] != self.channels:
            raise UsageError(
                f"the encoder was learned from {self.channels}-channel {self.modality}s, these have "
                f"{spec.shape[0]}"
            )

    @classmethod
    def lacks(cls, sample: Sample) -> str:
        """What a sample of somebody's own source lacks, in words after "gives samples"; else empty."""
        return ""

    def fits(self, divisor: int) -> None:
        """Refuse sides that an encoder cannot see. divisor: what they must be multiples of.

        Raises:
            UsageError: names sides that fit.
        """
        return

    @property
    def lighter(self) -> str | None:
        """The option with which a run needs less memory, if there is one."""
        return None

    @abstractmethod
    def still(self, samples: Samples) -> Tensor:
        """(N, C, *space) float32: the one view of each sample that evaluation uses, normalised."""

    @staticmethod
    @abstractmethod
    def raw(samples: Samples, size: int) -> Tensor:
        """(N, D) float32: the samples without an encoder, of images `size` x `size` pixels at most."""

    def cut(self, sample: Sample, rng: np.random.Generator, *, turn: bool) -> Sample:
        """A random part of a sample as the encoder sees it, with its mask if it is labelled.

        turn: whether it may be turned and mirrored before.

        Raises:
            UsageError: masks of this kind of data are not built.
        """
        raise UsageError(f"no method learns masks of {self.modality}s")

    def canvas(self, source: Source, position: int) -> Canvas:
        """One sample in its own geometry, where masks are predicted, graded and written.

        position: in a source that is not a subset.

        Raises:
            UsageError: masks of this kind of data are not built.
        """
        raise UsageError(f"no method learns masks of {self.modality}s")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"modality": self.modality, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`; unknown keys, of a later version, are ignored.

        Raises:
            ValueError: as `check_fields`, or a key is missing.
        """
        own = {f.name for f in fields(cls)}
        known: dict[str, Any] = {name: value for name, value in data.items() if name in own}
        known = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
        for f in fields(cls):
            if f.default is MISSING and f.default_factory is MISSING:
                needed(known, f.name)
        form = cls(**known)
        form.check_fields()
        return form

    def check_fields(self) -> None:
        """Refuse what cannot be; a kind of data adds checks of what it adds.

        Raises:
            ValueError: names the field, what it is, and what it must be.
        """
        check_whole("channels", self.channels, 1, _MOST_CHANNELS)
        for name, values in (("mean", self.mean), ("std", self.std)):
            check_type(name, values, tuple, "a list of numbers")
            if len(values) not in (1, self.channels):
                raise wrong(name, values, f"a number for each of {self.channels} channel(s)")
            for value in values:
                check_number(name, value, lambda number: True, "a list of finite numbers")
        for value in self.std:
            check_number("std", value, lambda number: number > 0, "numbers above 0")

    def check_sample(self, name: str, *sides: int) -> None:
        """Refuse sides, of the field `name`, of which one sample would not fit into memory.

        Raises:
            ValueError: says how large it would be.
        """
        count = self.channels * prod(sides)
        if count > _LARGEST_SAMPLE:
            raise ValueError(
                f"its {name} makes samples of {count:,} numbers, and one may have {_LARGEST_SAMPLE:,}"
            )


def form_class(modality: str) -> type[Form]:
    """The form of a kind of data.

    Raises:
        UsageError: a kind that is not built.
    """
    # a card of a stranger can name anything, and no other module may be looked for
    if modality in get_args(Modality) and find_spec(f"tacit.data.{modality}") is not None:
        found: type[Form] = import_module(f"tacit.data.{modality}.form").FORM
        return found
    others = {entry.name: entry for entry in entry_points(group="tacit.data")}
    if modality not in others:
        raise UsageError(f"there is no kind of data '{modality}'")
    try:
        foreign: type[Form] = others[modality].load().FORM
    except Exception as error:  # of whatever a package does when it is imported
        raise TacitError(
            f"the kind of data '{modality}' ({others[modality].value}) cannot be loaded: {error}"
        ) from None
    return foreign
