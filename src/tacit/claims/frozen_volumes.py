"""What a frozen slice encoder knows of volumes with masks: sizes of parts, and what slices show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tacit.data.volume.grid import cell_of
from tacit.data.volume.volumes import Volumes
from tacit.evaluation.linear import sweep_linear
from tacit.rng import Rng

ALPHAS = np.logspace(-2, 4, 13)
"""Strengths of ridge regression, of which leave-one-out chooses one for each target."""

OUTSIDE = -1
"""What is shown by a slice of the patch that lies outside of its volume."""

_DRAWS = 10  # of the labelled volumes, by seed
_BLOCK = 20  # volumes at a time


@dataclass(frozen=True, slots=True)
class Truth:
    """What the masks say of V volumes.

    millilitres: (V, K) float64, of each class but the background, in the whole volume.
    shown: (V, N) int64, which classes each slice of the centre patch shows, as a number whose bit k - 1
        stands for class k; OUTSIDE where there is no volume.
    """

    millilitres: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True, slots=True)
class Readings:
    """What a slice encoder makes of the centre patches of V volumes, float32.

    joined: (V, d), Z, the slices joined by the transformer. mean: (V, D), the mean of the slices' features.
    slices: (V, N, D), the features themselves: the image encoder's, of length 1.
    """

    joined: np.ndarray
    mean: np.ndarray
    slices: np.ndarray


def truth_of(volumes: Volumes) -> Truth:
    """Read all masks of volumes that have some."""
    classes = len(volumes.spec.classes)
    millilitres, shown = [], []
    for i in range(len(volumes)):
        volume = volumes.volume(i)
        whole = volume.read_mask((0, 0, 0), volume.shape)
        counts = torch.bincount(whole.flatten(), minlength=classes)[1:]
        millilitres.append(counts.numpy() * cell_of(volume.affine) / 1000)
        start = [(side - n) // 2 for side, n in zip(volume.shape, volumes.patch, strict=True)]
        patch = volume.read_mask(start, volumes.patch)
        bits = sum((patch == k).any(0).any(0).long() << (k - 1) for k in range(1, classes))
        assert isinstance(bits, Tensor)
        levels = torch.arange(volumes.patch[2]) + start[2]
        bits[(levels < 0) | (levels >= volume.shape[2])] = OUTSIDE
        shown.append(bits.numpy())
    return Truth(np.stack(millilitres), np.stack(shown))


@torch.inference_mode()
def read_slices(encoder: Any, volumes: Volumes) -> Readings:
    """The features of all volumes. encoder: a `SliceEncoder`, which is put in eval mode."""
    encoder.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(volumes), _BLOCK):
        patches = volumes.batch(range(first, min(first + _BLOCK, len(volumes)))).data
        slices = encoder.pyramid(patches.movedim(-1, 1).flatten(0, 1)).unflatten(0, (len(patches), -1))
        joined = encoder.forward_head(encoder.join(encoder.to_tokens(slices)))
        parts.append((joined, slices))
    joined, slices = (torch.cat(each) for each in zip(*parts, strict=True))
    return Readings(joined.numpy(), slices.mean(1).numpy(), slices.numpy())


def labelled_draws(train: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Ten draws of labelled volumes, (count,) positions each, the same for all arms of a seed."""
    return [
        train[Rng.of(seed)("claim labels", draw).permutation(len(train))[:count].numpy()]
        for draw in range(_DRAWS)
    ]


def size_scores(
    features: np.ndarray, truth: Truth, splits: Mapping[str, np.ndarray], draws: Sequence[np.ndarray]
) -> dict[str, float]:
    """How well ridge regression on features tells the sizes of the test volumes' parts.

    Features are standardised as those of all training volumes are, which takes no labels: one that is nearly
    constant in a draw of few volumes would be blown up by these alone.

    Returns:
        R2, mean over parts: with `all` training volumes, and with the `few` of a draw (mean over draws).
    """
    x = StandardScaler().fit(features[splits["train"]]).transform(features)
    y, test = truth.millilitres, splits["test"]

    def score(learn: np.ndarray) -> float:
        ridge = RidgeCV(ALPHAS, alpha_per_target=True).fit(x[learn], y[learn])
        return float(r2_score(y[test], ridge.predict(x[test])))

    return {"all": score(splits["train"]), "few": float(np.mean([score(draw) for draw in draws]))}


def slice_score(slices: np.ndarray, truth: Truth, test: np.ndarray, draws: Sequence[np.ndarray]) -> float:
    """How well logistic regression tells what the slices of the test volumes show.

    Learned from all slices of a draw's volumes; the strength is the one that does best on a quarter of these
    volumes. Returns the balanced accuracy, mean over draws.
    """
    classes = int(truth.shown.max()) + 1
    features, shown = torch.from_numpy(slices), torch.from_numpy(truth.shown)

    def inside(volumes: np.ndarray) -> tuple[Tensor, Tensor]:
        seen = shown[volumes] != OUTSIDE
        return features[volumes][seen], shown[volumes][seen]

    x, y = inside(test)
    scores = []
    for draw in draws:
        held_out = len(draw) // 4
        found = sweep_linear(inside(draw[held_out:]), inside(draw[:held_out]), classes).classifier
        scores.append(balanced_accuracy_score(y, found.logits(x).argmax(1)))
    return float(np.mean(scores))
