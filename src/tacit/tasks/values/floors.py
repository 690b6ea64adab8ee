"""What the same values give without learning: the least that a trained network has to beat."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from tacit.data.source import Source
from tacit.encoders.modes import keeping_modes
from tacit.evaluation.features import Embed, encoder_features, extract, raw_features
from tacit.tasks.names import PIXELS, START

MEAN = "mean of the learned values"
MOST = 2000
"""Labelled samples that floors are learned from, at most: as many as floors of classes are."""
_COMPONENTS = 256
_PENALTIES = tuple(10.0**e for e in range(-3, 5))
"""Per sample, on standardised features, as in `tacit.evaluation.ridge`."""
_FOLDS = 3


def predict_floors(
    source: Source, learned: np.ndarray, test: np.ndarray, encoder: nn.Module, device: torch.device | str
) -> dict[str, np.ndarray]:
    """(T,) values for the samples at `test`: the mean, and ridge regression on pixels and on the encoder.

    The mean is that of the learned values, not their median, because the score is R2, whose 0 is the mean of
    the test samples. Pixels are those of the central square at 32 pixels a side, at most. Both kinds of
    features are standardised, and turned into the 256 first principal components of the labelled samples,
    which changes nothing where there are fewer such samples. The penalty is chosen by cross-validation on the
    labelled samples: leaving out one after the other, or thirds of the groups where there are three groups or
    more. Features that are not finite give no floor; those that are the same for all samples give the mean.

    source: with values at `learned`; those at `test` are not read. encoder: as it is before the run; its mode
    and statistics stay as they are.
    """
    if source.values is None:
        raise ValueError("the source has no values")
    learned = learned[np.linspace(0, len(learned) - 1, min(MOST, len(learned))).astype(np.int64)]
    values = source.values[learned]
    groups = None if source.groups is None else source.groups[learned]
    mean = np.full(len(test), values.mean())
    floors = {MEAN: mean}
    with keeping_modes(encoder):
        looks: dict[str, Embed] = {PIXELS: raw_features(source), START: encoder_features(encoder, device)}
        for name, embed in looks.items():
            train, other = extract(embed, source, learned), extract(embed, source, test)
            if not (np.isfinite(train).all() and np.isfinite(other).all()):
                continue
            floors[name] = _regression(train, values, other, groups) if train.std(0).any() else mean
    return floors


def _regression(
    train: np.ndarray, values: np.ndarray, test: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    count = min(*train.shape, _COMPONENTS)
    solver = "randomized" if count == _COMPONENTS else "full"
    turn = make_pipeline(StandardScaler(), PCA(count, svd_solver=solver, random_state=0))
    folds = None
    if groups is not None and len(np.unique(groups)) >= _FOLDS:
        folds = list(GroupKFold(_FOLDS).split(train, groups=groups))
    with threadpool_limits(1):  # as for floors of classes: more threads wait for each other
        model = RidgeCV(np.array(_PENALTIES) * len(train), cv=folds, scoring="neg_mean_squared_error")
        model.fit(turn.fit_transform(train), values)
        found: np.ndarray = model.predict(turn.transform(test))
    return found
