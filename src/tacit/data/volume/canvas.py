"""A volume in its own geometry."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tacit.data.canvas import OVERLAP, Canvas, Grid, Predict
from tacit.data.volume.grid import cell_of, is_sheared
from tacit.data.volume.volume import Volume, to_original
from tacit.errors import require
from tacit.files import replacing

_AT_ONCE = 4  # windows


class VolumeCanvas(Canvas):
    """A volume on its working grid, seen in overlapping windows; masks are written on its file's grid."""

    ending = ".nii.gz"
    unit = "ml"

    def __init__(self, volume: Volume, patch: tuple[int, ...]) -> None:
        self.volume, self.patch = volume, patch
        self.name, self.origin = volume.name, volume.stored.origin

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) in voxels."""
        return self.volume.shape

    @property
    def spacing(self) -> Sequence[float]:
        """Sides of a voxel in mm."""
        return self.volume.spacing

    @property
    def grid(self) -> Grid:
        """mm by axis, or the steps of axes that are not at right angles."""
        affine = self.volume.affine
        return affine[:3, :3] if is_sheared(affine) else self.spacing

    @property
    def element(self) -> float:
        """Millilitres of a voxel, also of a sheared one, which is less than the product of its sides."""
        return cell_of(self.volume.affine) / 1000

    def mask(self) -> np.ndarray:
        """(X, Y, Z) int64."""
        return self.volume.read_mask((0, 0, 0), self.shape).numpy()

    @torch.inference_mode()
    def predict(self, predict: Predict, device: torch.device | str, overlap: float = OVERLAP) -> Tensor:
        """The mean over the windows of MONAI that cover a voxel.

        A volume smaller than the patch is padded with zeros.
        """
        inferers = require("monai.inferers", "volumes")
        whole = self.volume.read((0, 0, 0), self.shape)[None]
        return inferers.sliding_window_inference(
            whole,
            roi_size=self.patch,
            sw_batch_size=_AT_ONCE,
            predictor=predict,
            overlap=overlap,
            sw_device=device,
            device="cpu",
        )[0].float()

    def windows(self, overlap: float = OVERLAP) -> int:
        """How many windows cover the volume."""
        strides = [max(1, int(side * (1 - overlap))) for side in self.patch]
        sides = zip(self.shape, self.patch, strides, strict=True)
        return math.prod(1 + math.ceil(max(0, n - side) / stride) for n, side, stride in sides)

    def write(self, mask: np.ndarray, path: Path) -> None:
        """A NIfTI file with the affine and orientation of the volume's own; NIfTI-2 where that is."""
        nibabel = require("nibabel", "volumes")
        array, affine, header = to_original(mask, self.volume)
        second = isinstance(header, nibabel.Nifti2Header)
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        image = kind(array.astype(np.uint8), affine, header)
        image.set_data_dtype(np.uint8)
        image.header.set_slope_inter(1, 0)
        with replacing(path) as file:
            file.write(gzip.compress(image.to_bytes(), 6, mtime=0))
