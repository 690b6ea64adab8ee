"""The contract of every method: what a paper says goes into a subclass, all else is said elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from tacit.batch import Batch, Modality, Step, Target
from tacit.data.source import Sample, Source
from tacit.encoders.card import card_of
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.tasks.base import Network


class Method(nn.Module):
    """A way to learn from unlabelled and, if there are any, labelled samples.

    A subclass says what its paper says: `views` and `losses`. The constructor's keyword arguments,
    with their types and docstring, become the command line's `--method.*` options.

    The life of a method: `prepare`, and in a fresh run `begin`; then for every step `views`, `losses`
    (once per accumulated part) and `after_step`; `on_epoch` at the start of each epoch; `finish` once. All
    state that must survive a killed run is in parameters and buffers.
    """

    # literals, which the list of methods reads without importing the file
    slug: ClassVar[str] = ""  # its name on the command line; a class without one is not listed
    title: ClassVar[str] = ""  # the idea in one line
    paper: ClassVar[str] = ""  # arXiv number, or author and year
    modality: ClassVar[Modality | tuple[Modality, ...]] = "image"
    learns: ClassVar[Target | None] = None  # kind of its labels; None: its batches have no labelled part
    beside: ClassVar[Modality | None] = None  # kind of a second source that its steps can have
    baseline: ClassVar[bool] = False  # whether it learns from the labels alone

    recipe: ClassVar[Recipe]
    accumulates: ClassVar[bool] = True  # whether k parts equal one k times larger batch, but for BatchNorm
    published: ClassVar[Mapping[str, Any]] = {}  # options of the published setting where the defaults differ

    default_encoder: ClassVar[str | Mapping[str, str]] = "timm/resnet18"  # or one by kind of data
    rests: ClassVar[bool] = False  # whether some trained parameters get no gradient in some steps

    encoder: nn.Module  # what is kept
    kept: str = "trained"  # which of `candidates` is evaluated, and becomes `encoder` in `finish`
    images: Source | None = None  # the second source, set before `prepare`
    beside_each: int = 1  # samples of the second source in a step, for each unlabelled one
    temperature: float | None = None  # that divides similarities, where there is one: the guard names it

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.notes: dict[str, Tensor] = {}

    @classmethod
    def kinds(cls) -> tuple[Modality, ...]:
        """Kinds of data that it learns from."""
        return (cls.modality,) if isinstance(cls.modality, str) else cls.modality

    @classmethod
    def encoder_for(cls, kind: str) -> str:
        """Spec of the encoder that learns from this kind of data where none is named."""
        known = cls.default_encoder
        return known if isinstance(known, str) else known[kind]

    @classmethod
    def recipe_for(cls, kind: str) -> Recipe:
        """How this kind of data is learned from; the paper's, where the paper is about it."""
        return cls.recipe

    @property
    def num_features(self) -> int:
        """Length of the encoder's feature vector."""
        return card_of(self.encoder).num_features

    @property
    def candidates(self) -> tuple[str, ...]:
        """Networks that could be kept, the usual one first: the trained one, an average or a teacher."""
        return ("trained",)

    @property
    def network(self) -> Network:
        """What predicts, of a method that learns labels: the network that `kept` names."""
        raise NotImplementedError(f"{type(self).__name__} learns no labels")

    @property
    def evaluated(self) -> nn.Module:
        """The encoder that `kept` names."""
        return self.encoder if self.learns is None else self.network.encoder

    def note(self, name: str, value: Tensor) -> None:
        """Show a scalar beside the losses that is not trained: a diagnostic of this step."""
        self.notes[name] = value.detach()

    def prepare(self, source: Source) -> None:
        """Before the first step, also of a resumed run: measure statistics, size a queue."""

    def begin(self, source: Source, *, progress: bool) -> None:
        """After `prepare`, but not where a run is resumed: learn beforehand what takes long.

        What was learned must be in the state. progress: whether to say what goes on, on standard error.
        """

    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """In the loader's workers, one sample: crop a patch out of a large volume or recording."""
        return sample

    def views(self, batch: Batch, rng: Rng, step: Step) -> Any:
        """On the device, whole batch, no gradient: every random choice of the step is made here.

        rng: stands at ("views", step); fold in a word for each independent choice.
        """
        raise NotImplementedError

    def losses(self, views: Any, step: Step) -> dict[str, Tensor]:
        """Named scalars; their sum is trained. No randomness but dropout."""
        raise NotImplementedError

    def after_step(self, step: Step) -> None:
        """After the optimiser's step: moving averages of teachers, queues, centres."""

    def on_epoch(self, source: Source, step: Step) -> None:
        """At the start of each epoch: clustering passes and their like."""

    def finish(self, source: Source) -> None:
        """Once, after the last step: what is fitted on the frozen encoder."""
