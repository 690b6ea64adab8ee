"""A segmenter on disk: the head on a run's encoder, its classes, and how it did on held-out volumes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tacit.data.source import Source
from tacit.data.volume.form import VolumeForm
from tacit.data.volume.volumes import Volume, volumes_of
from tacit.encoders.card import card_of
from tacit.encoders.zoo import load_encoder
from tacit.errors import TacitError, UsageError, require
from tacit.evaluation.segmentation import grade_masks
from tacit.files import without_nan, write_atomically
from tacit.methods.segmentation.base import Segmentation

WEIGHTS, CARD = "segmenter.safetensors", "segmenter.json"
OVERLAP = 0.5  # of neighbouring windows, along each axis
_AT_ONCE = 4  # windows

Predict = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class SegmenterCard:
    """Stands beside the weights as `segmenter.json`.

    classes: names in the order of the masks' values. held_out: number of volumes that were held out.
    grades: how the segmenter did on them.
    """

    classes: tuple[str, ...]
    held_out: int = 0
    grades: dict[str, Any] | None = None


@dataclass(slots=True)
class Segmenter:
    """A learned segmenter: encoder and head, a 1x1x1 convolution."""

    encoder: nn.Module
    head: nn.Module
    card: SegmenterCard

    def to(self, device: torch.device | str) -> Segmenter:
        """The same on `device`, in eval mode."""
        return Segmenter(self.encoder.to(device).eval(), self.head.to(device).eval(), self.card)

    def predict(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, classes, X, Y, Z) probabilities."""
        return self.head(cast(Any, self.encoder).forward_pyramid(x)[-1]).softmax(1)

    def probabilities(self, volume: Volume, *, overlap: float = OVERLAP) -> Tensor:
        """(classes, X, Y, Z) float32 on the CPU, of a whole volume."""
        device = next(self.head.parameters()).device
        return slide(
            self.predict, volume, VolumeForm.of(card_of(self.encoder).form).patch, device, overlap=overlap
        )


@torch.inference_mode()
def slide(
    predict: Predict,
    volume: Volume,
    patch: tuple[int, ...],
    device: torch.device | str,
    *,
    overlap: float = OVERLAP,
) -> Tensor:
    """(classes, X, Y, Z) float32 on the CPU: the mean over the windows of MONAI that cover a voxel.

    predict: (B, C, *patch) -> (B, classes, *patch). A volume smaller than the patch is padded with zeros.
    """
    inferers = require("monai.inferers", "volumes")
    whole = volume.read((0, 0, 0), volume.shape)[None]
    return inferers.sliding_window_inference(
        whole,
        roi_size=patch,
        sw_batch_size=_AT_ONCE,
        predictor=predict,
        overlap=overlap,
        sw_device=device,
        device="cpu",
    )[0].float()


def count_windows(shape: Sequence[int], patch: Sequence[int], overlap: float = OVERLAP) -> int:
    """How many windows `slide` takes of a volume.

    shape, patch: sides (X, Y, Z) in voxels. overlap: of neighbouring windows along each axis, in [0, 1).
    """
    strides = [max(1, int(side * (1 - overlap))) for side in patch]
    sides = zip(shape, patch, strides, strict=True)
    return math.prod(1 + math.ceil(max(0, n - side) / stride) for n, side, stride in sides)


def predicted_pairs(
    predict: Predict,
    source: Source,
    positions: np.ndarray,
    patch: tuple[int, ...],
    device: torch.device | str,
) -> Iterator[tuple[np.ndarray, np.ndarray, Sequence[float]]]:
    """(predicted, true) masks (X, Y, Z), and the spacing in mm, of the volumes at these positions."""
    whole = volumes_of(source)
    for i in positions.tolist():
        volume = whole.volume(i)
        found = slide(predict, volume, patch, device).argmax(0).numpy()
        yield found, volume.read_mask((0, 0, 0), volume.shape).numpy(), volume.spacing


def save_segmenter(method: Segmentation, source: Source, held_out: np.ndarray, folder: Path) -> None:
    """Grade a finished method on its held-out volumes, and write its segmenter into `folder`.

    held_out: positions of `source`, which is not a subset.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in method.head.state_dict().items()}
    card = SegmenterCard(source.spec.classes)
    if len(held_out):
        device = next(method.parameters()).device
        pairs = predicted_pairs(method.predict, source, held_out, method.patch, device)
        card.held_out = len(held_out)
        card.grades = without_nan(asdict(grade_masks(pairs, source.spec.classes)))
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(folder / CARD, json.dumps(asdict(card), indent=2).encode())


def load_segmenter(folder: Path) -> Segmenter:
    """The segmenter of a run.

    Raises:
        UsageError: no run, one that has not finished, or one that learned no masks.
        TacitError: its files are damaged.
    """
    encoder = load_encoder(folder)
    if not (folder / CARD).is_file():
        raise UsageError(
            f"'{folder}' holds no segmenter: its method learned no masks. One that does can start from this "
            f"encoder: tacit fit supervised-segmentation --encoder run:{folder} --data VOLUMES"
        )
    try:
        card = json.loads((folder / CARD).read_text())
        known = {key: value for key, value in card.items() if key in SegmenterCard.__slots__}
        made = SegmenterCard(**{**known, "classes": tuple(known["classes"])})
        state = load((folder / WEIGHTS).read_bytes())
        head = nn.Conv3d(state["weight"].shape[1], state["weight"].shape[0], 1)
        head.load_state_dict(state)
        return Segmenter(encoder, head, made)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise TacitError(f"the segmenter in {folder} is damaged: {reason}") from None
