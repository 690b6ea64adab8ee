"""Real images that every test can have: crops of the two photographs inside scikit-learn."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for a hub

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

torch.set_num_threads(1)  # tests run in several processes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def photos():
    """Two photographs, (427, 640, 3) uint8."""
    return {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def crops(photo: np.ndarray, count: int, side: int, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    corners = zip(
        draw.integers(0, photo.shape[0] - side, count),
        draw.integers(0, photo.shape[1] - side, count),
        strict=True,
    )
    return [photo[y : y + side, x : x + side] for y, x in corners]


@pytest.fixture(scope="session")
def labelled_folder(photos, tmp_path_factory) -> Path:
    """80 crops of 24 x 24 pixels in two class folders, china and flower."""
    folder = tmp_path_factory.mktemp("labelled")
    for seed, (name, photo) in enumerate(photos.items()):
        (folder / name).mkdir()
        for i, crop in enumerate(crops(photo, 40, 24, seed)):
            Image.fromarray(crop).save(folder / name / f"{i:03}.png")
    return folder


@pytest.fixture(scope="session")
def jpgs(photos, tmp_path_factory) -> Path:
    """64 jpgs without labels, 24 x 32 and 32 x 24 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for i, crop in enumerate(crops(photos["china"], 32, 32, 7) + crops(photos["flower"], 32, 32, 8)):
        Image.fromarray(crop[:24] if i % 2 else crop[:, :24]).save(folder / f"{i:03}.jpg", quality=95)
    return folder
