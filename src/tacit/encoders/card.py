"""What another tool must know to use an encoder: how it was built and what it wants to see."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from tacit.batch import Modality
from tacit.checks import check_type, check_whole, needed, wrong
from tacit.data.form import Form, form_class
from tacit.errors import UsageError
from tacit.untrusted import mapping

_ELSEWHERE = ("run:", "random:")
_LONGEST = 1000  # characters of a spec string
_WIDEST = 2**24


@dataclass(slots=True)
class EncoderCard:
    """It is saved beside the weights as `encoder.json`, and it is `encoder.card` of the module.

    spec: the spec string that builds the architecture; empty for a module of the user's own.
    form: how the encoder sees its data.
    num_features: length of the feature vector.
    small_input: whether the stem was changed for small images.
    learned: whether the weights were learned. It says nothing of how an encoder was built, so that cards that
        differ in it alone are equal.
    """

    spec: str
    form: Form
    num_features: int = 0
    small_input: bool = False
    learned: bool = field(default=False, compare=False)

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.form.channels

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of `build_encoder` that give an encoder of this shape, beside the spec string."""
        return {"channels": self.channels, **self.form.sides, "small_input": self.small_input}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**own, "form": self.form.as_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EncoderCard:
        """The inverse of `as_json`; unknown keys, of a later version, are ignored.

        Cards of the first versions had what is the form's among their own keys.

        Raises:
            UsageError: a kind of data that is not built.
            ValueError: a key is missing, or its value is of another type or out of its range.
        """
        data = mapping(data, "it")
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        form = mapping(data.get("form", data), "its form")
        modality = form.get("modality", "image")
        check_type("modality", modality, str, "a kind of data")
        card = cls(**{**known, "spec": needed(data, "spec"), "form": form_class(modality).from_json(form)})
        card.check()
        return card

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: names the field, what it is, and what it must be.
        """
        check_type("spec", self.spec, str, "a spec string")
        if len(self.spec) > _LONGEST or self.spec.startswith(_ELSEWHERE):
            # an architecture is built; weights, and what lies outside of the folder, are not looked for
            raise wrong("spec", self.spec, "that of an architecture, such as timm/resnet18")
        check_whole("num_features", self.num_features, 0, _WIDEST)
        check_type("small_input", self.small_input, bool, "true or false")
        check_type("learned", self.learned, bool, "true or false")


def card_of(encoder: nn.Module) -> EncoderCard:
    """The card of an encoder from `build_encoder` or `load_encoder`.

    Raises:
        UsageError: the module has none; `attach_card` gives it one.
    """
    card = getattr(encoder, "card", None)
    if not isinstance(card, EncoderCard):
        raise UsageError(
            f"the encoder {type(encoder).__name__} has no card; "
            "tell tacit about your own module with attach_card(module, channels=..., size=...)"
        )
    return card


def with_card(encoder: nn.Module, card: EncoderCard) -> nn.Module:
    """The encoder itself, its card set."""
    encoder.card = card  # type: ignore[assignment]  # torch's stubs let a module hold tensors and modules only
    return encoder


def attach_card(
    encoder: nn.Module,
    *,
    channels: int,
    size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    num_features: int | None = None,
    patch: tuple[int, ...] | None = None,
    modality: Modality | None = None,
) -> nn.Module:
    """Make an encoder of any module whose forward maps (B, C, size, size), or (B, C, *patch), to (B, D).

    size: side in pixels, for images.
    num_features: D; taken from the module's own `num_features` if it has one, as timm models do.
    mean, std: default 0.5 each, which maps [0, 1] to [-1, 1]; for volumes 0 and 1.
    patch: for volumes, sides (X, Y, Z) in voxels.
    modality: default "volume" with a patch, else "image".

    Raises:
        UsageError: neither size nor patch, or no num_features.
    """
    features = num_features or getattr(encoder, "num_features", None)
    if not isinstance(features, int):
        raise UsageError(f"{type(encoder).__name__} has no num_features; pass num_features=")
    if not size and not patch:
        raise UsageError("attach_card needs size= for images, or patch= for volumes")
    kind = form_class(modality or ("volume" if patch else "image"))
    sides = {"size": size, "patch": None if patch is None else tuple(patch)}
    return with_card(encoder, EncoderCard("", kind.make(channels, mean, std, **sides), features))
