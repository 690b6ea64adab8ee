"""How an encoder sees volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from tacit.batch import Modality, Samples
from tacit.checks import check_number, check_type, check_whole, wrong
from tacit.data.form import Form
from tacit.data.source import UNLABELLED, Sample, Source, Spec, rooted
from tacit.data.volume.canvas import VolumeCanvas
from tacit.data.volume.options import three
from tacit.data.volume.volume import volume_of
from tacit.data.volume.volumes import volumes_of
from tacit.data.volume.windows import Window
from tacit.errors import UsageError
from tacit.views.volume import Turn

_LONGEST = 4096  # voxels


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeForm(Form):
    """Patches of volumes, which published methods of segmentation leave in [0, 1].

    patch: sides (X, Y, Z) in voxels. window: which intensities become [0, 1], in the words that
    `tacit.data.volume.windows` understands. spacing: (X, Y, Z) size of a voxel in millimetres.
    """

    modality: ClassVar[Modality] = "volume"
    usual: ClassVar[tuple[float, float]] = (0.0, 1.0)
    words: ClassVar[tuple[str, ...]] = ("channels", "patch", "window", "spacing")
    light_dense: ClassVar[str] = "tacit/unet3d?width=8&depth=3&dropout=0"
    instead: ClassVar[str] = "or learn from their slices with --data slices:FOLDER"

    patch: tuple[int, ...] = ()
    window: str = ""
    spacing: tuple[float, ...] = ()

    def check_fields(self) -> None:
        """The patch, the window and the spacing, too; what is empty is open."""
        super(VolumeForm, self).check_fields()
        for name, values in (("patch", self.patch), ("spacing", self.spacing)):
            if not isinstance(values, tuple) or len(values) not in (0, 3):
                raise wrong(name, values, "three numbers, or empty")
        for side in self.patch:
            check_whole("patch", side, 1, _LONGEST)
        self.check_sample("patch", *self.patch)
        for length in self.spacing:
            check_number("spacing", length, lambda number: number > 0, "numbers above 0")
        check_type("window", self.window, str, "a window, such as minmax")
        try:
            Window.parse(self.window or None)
        except UsageError as error:
            raise ValueError(str(error)) from None

    @property
    def sides(self) -> dict[str, Any]:
        """`patch`."""
        return {"patch": self.patch or None}

    @classmethod
    def sides_of(cls, spec: Spec, side: int | None = None) -> dict[str, Any]:
        """`patch`: that of the source."""
        return {"patch": spec.shape[1:]}

    @property
    def opening(self) -> dict[str, Any]:
        """Window, spacing and patch."""
        return {
            "window": self.window or None,
            "spacing": self.spacing or None,
            "patch": self.patch or None,
        }

    def opening_with(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The same with the patch that is asked for. Window and spacing may not be others."""
        wanted = {"window": asked["window"], "spacing": three("spacing", asked["spacing"])}
        for name, value in wanted.items():
            own = self.opening[name]
            if value not in (None, own):
                raise UsageError(
                    f"--{name} {asked[name]} does not fit the encoder, which saw {own or 'none'}"
                )
        return {**self.opening, "patch": asked["patch"] or self.patch or None}

    @classmethod
    def refuse(cls, asked: Mapping[str, Any]) -> None:
        """Refuse a size in pixels."""
        if asked["size"] is not None:
            raise UsageError("--size is for images; pass --patch X,Y,Z for volumes")

    @classmethod
    def spelled(cls, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Sides as X,Y,Z and a window as `windows` writes it."""
        words = dict(asked)
        for name in ("patch", "spacing"):
            if (sides := three(name, words[name])) is not None:
                words[name] = ",".join(f"{side:g}" for side in sides)
        if words["window"] is not None:
            words["window"] = str(Window.parse(words["window"]))
        return words

    def settled(self, source: Source) -> Self:
        """With patch, window and spacing of the volumes."""
        whole = volumes_of(source)
        return replace(self, patch=whole.patch, window=whole.window, spacing=whole.spacing or ())

    def fits(self, divisor: int) -> None:
        """Sides must be multiples, or 1."""
        wrong = [side for side in self.patch if side % divisor and side > 1]
        if wrong:
            sides = ",".join(str(max(1, round(side / divisor)) * divisor) for side in self.patch)
            raise UsageError(
                f"the encoder takes patches with sides that are multiples of {divisor}, not {wrong[0]}: pass "
                f"--patch {sides}"
            )

    def still(self, samples: Samples) -> Tensor:
        """The patch at the centre, as the source gives it."""
        return samples.data

    def cut(self, sample: Sample, rng: np.random.Generator, *, turn: bool) -> Sample:
        """A random patch, of a volume turned by a multiple of 90 degrees in the x-y plane and mirrored."""
        turned = Turn.draw(rng) if turn else Turn()
        shape = turned.shape(volume_of(sample).shape)
        start = [_start(side, patch, rng) for side, patch in zip(shape, self.patch, strict=True)]
        return self.crop(sample, turned, start)

    def crop(self, sample: Sample, turned: Turn, start: Sequence[int], **extra: Tensor) -> Sample:
        """The patch that begins at `start` of the turned volume, and of its mask if it is labelled."""
        volume = volume_of(sample)
        box = turned.box(start, self.patch, volume.shape)
        mask = None if sample.label == UNLABELLED else turned.apply(volume.read_mask(*box))
        data = turned.apply(volume.read(*box))
        return Sample(data, sample.index, sample.label, sample.name, mask, extra=extra)

    def canvas(self, source: Source, position: int) -> VolumeCanvas:
        """The whole volume."""
        root, i = rooted(source, position)
        return VolumeCanvas(volumes_of(root).volume(i), self.patch)

    @staticmethod
    def raw(samples: Samples, size: int) -> Tensor:
        """Means over equal boxes of the patch, of which there are as many in all as pixels of an image."""
        return F.adaptive_avg_pool3d(samples.data, round(size ** (2 / 3))).flatten(1)


def _start(side: int, patch: int, rng: np.random.Generator) -> int:
    """A uniform start of a patch inside a side; a side that is too short is centred."""
    return int(rng.integers(side - patch + 1)) if side > patch else -((patch - side) // 2)


FORM = VolumeForm
