"""A predictor on disk: the head on a run's encoder, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from tacit.checks import check_number, is_count, needed, shortly
from tacit.encoders.weights import read_weights
from tacit.errors import TacitError, UsageError
from tacit.files import without_nan, write_atomically
from tacit.untrusted import first_line, mapping, read_json

__all__ = [
    "Predictor",
    "PredictorCard",
    "check_classes",
    "check_number",
    "damaged",
    "first_line",
    "is_count",
    "load_head",
    "nothing_learned",
    "read_predictor",
]

WEIGHTS, CARD = "predictor.safetensors", "predictor.json"
_BEFORE = {"classifier": "class", "segmenter": "mask"}
"""Names of the files in older runs, and the target that they stand for."""
DAMAGE = (
    UsageError,  # of an encoder without what the head needs
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,  # of numbers that no float holds
    RuntimeError,  # of torch, and of JSON that is nested too deeply
    SafetensorError,
)
"""What reading files that anybody can have written raises."""

Head = TypeVar("Head", bound=nn.Module)


@dataclass(slots=True, kw_only=True)
class PredictorCard:
    """What stands beside the weights as `predictor.json`; a kind of target adds what it needs.

    held_out: number of labels that were held out. grades: how the predictor did on them.
    """

    held_out: int = 0
    grades: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`, with tuples for lists; unknown keys, of a later version, are ignored.

        Raises:
            ValueError: as `check`, or a key is missing.
        """
        own = {f.name for f in fields(cls)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in own
        }
        for f in fields(cls):
            if f.default is MISSING and f.default_factory is MISSING:
                needed(known, f.name)
        card = cls(**known)
        card.check()
        return card

    def check(self) -> None:
        """Refuse what cannot be; a kind of target checks what it adds.

        Raises:
            ValueError: says what it is, and what it must be.
        """
        check_number("held_out", self.held_out, is_count, "a whole number of at least 0")
        if self.grades is not None:
            mapping(self.grades, "its grades")


@dataclass(slots=True)
class Predictor:
    """A learned network, as a run folder has it."""

    encoder: nn.Module
    head: nn.Module
    card: Any  # the kind's own `PredictorCard`

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.head.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """The same on `device`, in eval mode."""
        return type(self)(self.encoder.to(device).eval(), self.head.to(device).eval(), self.card)

    def save(self, folder: Path, target: str) -> None:
        """Write the head and the card; the encoder is the run's. target: kind of the labels."""
        state = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
        write_atomically(folder / WEIGHTS, save(state))
        text = json.dumps({"target": target, **without_nan(asdict(self.card))}, indent=2)
        write_atomically(folder / CARD, text.encode())


def read_predictor(folder: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]] | None:
    """The kind of target, the card and the head's state; None if the run learned no labels.

    Raises:
        TacitError: the files are damaged.
    """
    known = {"predictor": "", **_BEFORE}
    found = next((name for name in known if (folder / f"{name}.json").is_file()), None)
    if found is None:
        return None
    try:
        card = mapping(read_json(folder / f"{found}.json"), f"{found}.json")
        target = known[found] or card.get("target")
        if not isinstance(target, str):
            raise ValueError(f"its target is {shortly(target)}, and must be a word")
        return target, card, read_weights(folder / f"{found}.safetensors")
    except DAMAGE as error:
        raise damaged(folder, error) from None


def load_head(build: Callable[[], Head], state: Mapping[str, Tensor]) -> Head:
    """The head that `build` makes for a card and an encoder, with the weights that were saved.

    Raises:
        ValueError: other weights than it has, of other shapes, or not finite.
    """
    with torch.device("meta"):  # numbers in a card cost no memory before they are seen to fit
        head = build()
    own = head.state_dict()
    if own.keys() != state.keys():
        raise ValueError(f"its weights are {shortly(sorted(state))}, and must be {sorted(own)}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            found, wanted = shortly(list(state[name].shape)), list(tensor.shape)
            raise ValueError(f"its {name} is {found}, and its card and its encoder want {wanted}")
        if tensor.is_floating_point() != state[name].is_floating_point():
            raise ValueError(f"its {name} has the type {state[name].dtype}, and must have {tensor.dtype}")
    head.to_empty(device="cpu").load_state_dict(state)
    for name, tensor in head.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"its {name} has values that are not finite")
    return head


def check_classes(classes: object) -> None:
    """Refuse what is no list of classes.

    Raises:
        ValueError: no list, an empty one, or names that are empty, no text, or there twice.
    """
    names = classes if isinstance(classes, tuple) else ()
    named = all(isinstance(name, str) and name for name in names)
    if not (named and 0 < len(names) == len(set(names))):
        raise ValueError(
            f"its classes are {shortly(classes)}, and must be names, at least one, none of them empty or "
            "there twice"
        )


def damaged(folder: Path, error: Exception) -> TacitError:
    """One line for a predictor that cannot be read."""
    return TacitError(f"the predictor in {folder} is damaged: {first_line(error)}")


def nothing_learned(folder: Path) -> UsageError:
    """One line for a run without a predictor."""
    return UsageError(
        f"'{folder}' has no predictor: its method learned no labels. A method that does can start from this "
        f"encoder: tacit fit METHOD --encoder run:{folder} --data LABELLED (tacit methods lists them)"
    )
