"""What another tool must know to use an encoder: how it was built and what it wants to see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from tacit.batch import Modality
from tacit.errors import UsageError


@dataclass(slots=True)
class EncoderCard:
    """Stands beside the weights as `encoder.json`, and on the module as `encoder.card`.

    spec: the spec string that builds the architecture; empty for a module of the user's own.
    channels, size: input channels and side in pixels; for volumes the longest side of the patch.
    mean, std: per-channel normalisation of inputs in [0, 1].
    small_input: whether the stem was changed for small images.
    num_features: length of the feature vector.
    patch: for volumes, sides (X, Y, Z) of the input in voxels.
    window: for volumes, which intensities became [0, 1], in the words that their reader understands.
    spacing: for volumes, (X, Y, Z) size of a voxel in millimetres.
    stored: for images, the side in pixels to which files are brought before a view of `size` is cut; 0: the
        data decide, as long as nothing was learned.
    white: for images with more than 8 bits, the value that becomes 1; 0: the data decide.
    learned: whether the weights were learned. It says nothing of how an encoder was built, so that cards that
        differ in it alone are equal.
    """

    spec: str
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    small_input: bool = False
    num_features: int = 0
    modality: Modality = "image"
    patch: tuple[int, ...] = ()
    window: str = ""
    spacing: tuple[float, ...] = ()
    stored: int = 0
    white: int = 0
    learned: bool = field(default=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EncoderCard:
        """The inverse of `as_json`; unknown keys, of a later version, are ignored."""
        known = {key: value for key, value in data.items() if key in cls.__slots__}
        several = {key: tuple(data[key]) for key in ("mean", "std")}
        several |= {key: tuple(data[key]) for key in ("patch", "spacing") if key in data}
        return cls(**{**known, **several})


def default_statistics(modality: Modality, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation where nobody gives them: of images 0.5 each, which maps [0, 1] to [-1, 1].

    Volumes stay in [0, 1], as published methods of their segmentation leave them.
    """
    mean, std = (0.0, 1.0) if modality == "volume" else (0.5, 0.5)
    return (mean,) * channels, (std,) * channels


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

    size: needed for images; for volumes it is the patch's longest side.
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
    modality = modality or ("volume" if patch else "image")
    usual_mean, usual_std = default_statistics(modality, channels)
    card = EncoderCard(
        spec="",
        channels=channels,
        size=size or max(patch or ()),
        mean=mean or usual_mean,
        std=std or usual_std,
        num_features=features,
        modality=modality,
        patch=tuple(patch or ()),
    )
    return with_card(encoder, card)
