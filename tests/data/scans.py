"""Tiny volumes in files."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform


def scan(shape=(9, 8, 7), seed=0, low=-50, high=1000, dtype=np.int16):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def classes(shape=(9, 8, 7), seed=0, count=3):
    mask = np.random.default_rng(seed).integers(0, count, shape).astype(np.uint8)
    mask[0, 0, 0] = count - 1  # the largest is there, whatever is drawn
    return mask


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, kind=nib.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(voxels, np.eye(4) if affine is None else affine), path)
    return path


def turned(voxels: np.ndarray, affine: np.ndarray, codes: str) -> nib.Nifti1Image:
    """The same anatomy with its axes in another order and direction."""
    image = nib.Nifti1Image(voxels, affine)
    return image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))


def oblique(spacing=(1.5, 1.0, 2.5), degrees=12.0, origin=(-30.0, 12.0, 5.0)) -> np.ndarray:
    """Turned about two axes."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def decathlon(folder: Path, count=3, shape=(9, 8, 7)) -> Path:
    """imagesTr and labelsTr with `count` volumes, and one more without a mask in imagesTs."""
    for i in range(count):
        save(folder / "imagesTr" / f"case_{i}.nii.gz", scan(shape, i))
        save(folder / "labelsTr" / f"case_{i}.nii.gz", classes(shape, i))
    save(folder / "imagesTs" / "case_9.nii.gz", scan(shape, 9))
    return folder


def whole(volume):
    return volume.read((0, 0, 0), volume.shape).numpy()


def spread(voxels):
    """What the window `minmax` makes of them, by double precision."""
    low, high = float(voxels.min()), float(voxels.max())
    return (voxels - low) / (high - low)
