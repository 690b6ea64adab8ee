"""What another tool must know to use an encoder: how it was built and what it wants to see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tacit.batch import Modality
from tacit.errors import UsageError


@dataclass(slots=True)
class EncoderCard:
    """Stands beside the weights as `encoder.json`, and on the module as `encoder.card`.

    spec: the spec string that builds the architecture; empty for a module of the user's own.
    channels, size: input channels and side in pixels.
    mean, std: per-channel normalisation of inputs in [0, 1].
    small_input: whether the stem was changed for small images.
    num_features: length of the feature vector.
    """

    spec: str
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    small_input: bool = False
    num_features: int = 0
    modality: Modality = "image"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EncoderCard:
        """The inverse of `as_json`; unknown keys, of a later version, are ignored."""
        known = {key: value for key, value in data.items() if key in cls.__slots__}
        return cls(**{**known, "mean": tuple(data["mean"]), "std": tuple(data["std"])})


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
    size: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    num_features: int | None = None,
) -> nn.Module:
    """Make an encoder of any module whose forward maps (B, C, size, size) to (B, D).

    num_features: D; taken from the module's own `num_features` if it has one, as timm models do.
    mean, std: default 0.5 each, which maps [0, 1] to [-1, 1].
    """
    features = num_features or getattr(encoder, "num_features", None)
    if not isinstance(features, int):
        raise UsageError(f"{type(encoder).__name__} has no num_features; pass num_features=")
    half = (0.5,) * channels
    card = EncoderCard(
        spec="", channels=channels, size=size, mean=mean or half, std=std or half, num_features=features
    )
    return with_card(encoder, card)
