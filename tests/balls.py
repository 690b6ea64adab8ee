"""Volumes that tests make themselves: a bright ball in noise, of several shapes, as NIfTI files."""

from pathlib import Path

import numpy as np


def ball(shape, seed, classes=2):
    """(voxels float32, mask uint8): a ball at a random place, brighter than its noisy surroundings."""
    draw = np.random.default_rng(seed)
    centre = [draw.uniform(0.35, 0.65) * side for side in shape]
    grid = np.meshgrid(*(np.arange(side) - c for side, c in zip(shape, centre, strict=True)), indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in grid))
    mask = (distance < 0.3 * min(shape)).astype(np.uint8)
    if classes > 2:
        mask[(mask > 0) & (grid[0] > 0)] = 2
    return (100 * (mask > 0) + 40 * mask + draw.normal(0, 20, shape)).astype(np.float32), mask


def save(path: Path, voxels, affine=None):
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1]) if affine is None else affine), path)


SHAPES = ((20, 18, 16), (16, 22, 19), (12, 17, 21))


def ball_folder(folder: Path, count=9, masks=9, classes=2, affine=None) -> Path:
    """images/ and labels/, of which the first `masks` volumes have one."""
    for i in range(count):
        voxels, mask = ball(SHAPES[i % 3], i, classes)
        save(folder / "images" / f"case{i:02}.nii.gz", voxels, affine)
        if i < masks:
            save(folder / "labels" / f"case{i:02}.nii.gz", mask, affine)
    return folder
