"""A picture of what a representation finds alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tacit.files import replacing


def draw_neighbours(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    neighbours: Mapping[str, np.ndarray],
) -> None:
    """Write a PNG: one row per query, and for each representation its nearest; other classes framed red.

    images: (N, C, S, S) uint8, of 1 or 3 channels; labels: (N,); queries: (Q,) positions of the queries.
    neighbours: for each representation the positions (Q, k) of what it found nearest.
    """
    from matplotlib.figure import Figure

    blocks = [queries[:, None], *neighbours.values()]
    widths = [block.shape[1] for block in blocks]
    figure = Figure(figsize=(0.62 * (sum(widths) + len(widths)), 0.62 * len(queries) + 0.5))
    grid = figure.add_gridspec(
        len(queries),
        sum(widths) + len(widths) - 1,
        wspace=0.08,
        hspace=0.08,
        left=0.01,
        right=0.99,
        top=0.93,
        bottom=0.01,
    )
    column = 0
    for title, block in zip(("query", *neighbours), blocks, strict=True):
        for j in range(block.shape[1]):
            for i, query in enumerate(queries):
                axes = figure.add_subplot(grid[i, column + j])
                axes.imshow(images[block[i, j]].transpose(1, 2, 0).squeeze(), cmap="gray")
                axes.set(xticks=[], yticks=[])
                wrong = labels[block[i, j]] != labels[query]
                axes.spines[:].set(color="red" if wrong else "white", linewidth=2.5)
                if i == 0 and j == block.shape[1] // 2:
                    axes.set_title(title, fontsize=10)
        column += block.shape[1] + 1
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)
