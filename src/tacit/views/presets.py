"""How views are made for a kind of picture: what may change without changing what the picture shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tacit.errors import unknown
from tacit.views.image import Augment
from tacit.views.warp import NATURAL_STRONG, NATURAL_WEAK, STRONG, WEAK, Warp

SMALL = 64
"""Pixels a side up to which a picture has too few of them for blur and crops of 8 % of its area."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Views for one kind of picture.

    pictures: which ones it is for. weakly, strongly: what the views do to them, in words. weak, strong: how
    semi-supervised classifiers see them. crops: what is changed of a self-supervised method's own
    augmentation, by names of `Augment`; small_crops: the same for pictures of at most `SMALL` pixels.
    small_scale: areas of the small crops of methods that take some, for such pictures.
    """

    pictures: str
    weakly: str
    strongly: str
    weak: Warp
    strong: Warp
    crops: Mapping[str, Any] = field(default_factory=dict)
    small_crops: Mapping[str, Any] = field(default_factory=dict)
    small_scale: tuple[float, float] = (0.1, 0.3)

    @property
    def about(self) -> str:
        """All of it in one sentence."""
        return f"{self.pictures}: {self.weakly}; strong views: {self.strongly}"

    def of(self, name: str, published: Any, size: int) -> Any:
        """A method's option of this name as the preset has it; as it is published where it has none.

        size: side of the views in pixels.
        """
        if isinstance(published, Warp) and name in ("weak", "strong"):
            return self.weak if name == "weak" else self.strong
        if isinstance(published, Augment):
            small = {"blur": 0.0, **self.small_crops} if size <= SMALL else {}
            return replace(published, **{**self.crops, **small})
        if name == "small_scale" and size <= SMALL:
            return self.small_scale
        return published


PRESETS: dict[str, Preset] = {
    "photos": Preset(
        "photographs and other colour pictures that may be mirrored",
        "a mirror and a shift by an eighth",
        "the same, two operations of RandAugment and a hole of half a side",
        weak=NATURAL_WEAK,
        strong=NATURAL_STRONG,
        small_crops={"scale": (0.2, 1.0)},
    ),
    "greys": Preset(
        "grey pictures of which nothing else is known",
        "small turns, zooms and shifts, no mirror",
        "they turn further, change brightness and contrast, and have a hole",
        weak=WEAK,
        strong=STRONG,
        crops={"flip": 0.0, "scale": (0.3, 1.0), "brightness": 0.2, "solarise": 0.0},
    ),
    "radiographs": Preset(
        "X-rays and scans with sides and a top",
        "small turns, zooms and shifts, the exposure (gamma) varies, no mirror",
        "they turn further, vary more, and have a small hole",
        weak=Warp(gamma=(0.8, 1.25)),
        strong=Warp(rotate=15.0, zoom=0.15, shift=0.1, contrast=0.3, gamma=(0.6, 1.6), cutout=0.25),
        crops={"flip": 0.0, "scale": (0.4, 1.0), "brightness": 0.2, "solarise": 0.0},
    ),
    "digits": Preset(
        "digits, letters and signs on a plain ground",
        "turns, zooms and shifts, no mirror",
        "more of it, and a hole",
        weak=Warp(rotate=10.0, zoom=0.1, shift=0.075),
        strong=Warp(rotate=25.0, zoom=0.15, shift=0.1, cutout=0.25),
        crops={"flip": 0.0, "scale": (0.4, 1.0), "solarise": 0.0},
    ),
    "microscopy": Preset(
        "pictures without a top or sides, such as cells, tissue and surfaces",
        "mirrors and quarter turns",
        "they change brightness and contrast, too, and have a hole",
        weak=Warp(rotate=0.0, quarter_turns=1.0, zoom=0.05, flip=0.5),
        strong=Warp(
            quarter_turns=1.0, zoom=0.1, shift=0.1, flip=0.5, brightness=0.2, contrast=0.4, cutout=0.25
        ),
        crops={"scale": (0.3, 1.0), "brightness": 0.2, "solarise": 0.0},
    ),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A preset by its name, why it was chosen, and what a user should check."""

    name: str
    why: str
    warnings: tuple[str, ...] = ()

    @property
    def preset(self) -> Preset:
        """The views."""
        return PRESETS[self.name]


def choose(asked: str | None, *, channels: int, classes: Sequence[str] = ()) -> Choice:
    """The preset that was asked for, or the one that is safe for what is known of the pictures.

    channels: 3 are taken as R, G and B. classes: names of the classes, empty where there are none.

    Raises:
        UsageError: no such preset.
    """
    if asked is not None and asked not in PRESETS:
        raise unknown("views", asked, PRESETS)
    if asked is None:
        name, why = _likely(channels, classes)
    else:
        name, why = asked, "as asked for"
    return Choice(name, why, tuple(_doubts(name, channels, classes)))


def _likely(channels: int, classes: Sequence[str]) -> tuple[str, str]:
    if channels in (3, 4):
        return "photos", "because the pictures have colours"
    if len(classes) >= 10 and all(len(name) == 1 and name.isalnum() for name in classes):
        return "digits", "because grey pictures have classes with the names of digits or letters"
    return "greys", f"because the pictures have {channels} channel{'s' * (channels != 1)} and no colours"


_MIRRORED = (("left", "right"), ("links", "rechts"), ("l", "r"))


def _doubts(name: str, channels: int, classes: Sequence[str]) -> list[str]:
    preset, doubts = PRESETS[name], []
    sided = _mirror_images(classes) if preset.weak.flip or preset.strong.flip else None
    if sided is not None:
        doubts.append(
            f"the classes '{sided[0]}' and '{sided[1]}' are mirror images of each other, and the views "
            f"'{name}' mirror: pass --views greys, which do not"
        )
    if name == "photos" and channels < 3:
        doubts.append(
            f"the pictures have {channels} channel{'s' * (channels != 1)}: the views 'photos' mirror them "
            "and find no colours to change; --views greys, radiographs, digits or microscopy are made for "
            "such"
        )
    return doubts


def _mirror_images(classes: Sequence[str]) -> tuple[str, str] | None:
    """Two classes whose names differ by left and right only, if there are any."""
    words = {name: tuple(_words(name)) for name in classes}
    for one, other in _MIRRORED:
        for name, parts in words.items():
            swapped = tuple(other if word == one else word for word in parts)
            twin = next((n for n, found in words.items() if found == swapped and n != name), None)
            if one in parts and twin is not None and (len(one) > 1 or len(classes) <= _FEW):
                return name, twin
    return None


_FEW = 4  # classes; among more, L and R are letters


def _words(name: str) -> list[str]:
    """A class's name in lower-case words: left_knee, LeftKnee and "left knee" are alike."""
    return re.findall("[a-z]+|[0-9]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
