"""What the same labels give without learning: the least that a trained network has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from tacit.data.source import Source
from tacit.encoders.modes import keeping_modes
from tacit.evaluation.features import Embed, encoder_features, extract, raw_features
from tacit.tasks.names import PIXELS, START

FREQUENT = "most frequent class"
MOST = 2000
"""Labelled samples that floors are learned from, at most: with more the answer changes little."""
_COMPONENTS = 256
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Floor:
    """A classifier that learned nothing but the labels. predicted: (T,) class numbers of the test samples."""

    name: str
    predicted: np.ndarray

    def score(self, labels: np.ndarray) -> float:
        """Balanced accuracy, 0 to 1, given the (T,) true classes."""
        return balanced_accuracy(labels, self.predicted)


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes that `labels` have; both (T,) class numbers.

    scikit-learn's function of this name warns where a class is predicted that none of few samples has.
    """
    classes = np.unique(labels)
    return float(recall_score(labels, predicted, labels=classes, average="macro", zero_division=0))


def class_floors(
    source: Source, learned: np.ndarray, test: np.ndarray, encoder: nn.Module, device: torch.device | str
) -> list[Floor]:
    """The most frequent class, and logistic regression on pixels and on the frozen encoder.

    Pixels are those of the central square at 32 pixels a side, at most. Both are standardised, and turned
    into the 256 first principal components of the labelled samples, which changes nothing where there are
    fewer such samples. The regularisation is chosen by threefold cross-validation on the labelled samples,
    nothing by the test samples. Features that are not finite give no floor; those that
    are the same for all samples say the most frequent class.

    source: with labels at `learned`; those at `test` are not read. encoder: as it is before the run; its
    mode and statistics stay as they are.
    """
    learned = learned[np.linspace(0, len(learned) - 1, min(MOST, len(learned))).astype(np.int64)]
    labels = source.labels[learned]
    classes, counts = np.unique(labels, return_counts=True)
    floors = [Floor(FREQUENT, np.full(len(test), classes[counts.argmax()]))]
    if len(classes) < 2:
        return floors
    with keeping_modes(encoder):
        looks: dict[str, Embed] = {PIXELS: raw_features(source), START: encoder_features(encoder, device)}
        for name, embed in looks.items():
            train, other = extract(embed, source, learned), extract(embed, source, test)
            if not (np.isfinite(train).all() and np.isfinite(other).all()):
                continue
            varies = train.std(0).any()
            found = _regression(train, labels, other) if varies else floors[0].predicted
            floors.append(Floor(name, found))
    return floors


def _regression(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    # with more threads it takes ten times as long where the cores are busy (2.7 against 0.2 s)
    with threadpool_limits(1):
        return _fitted(train, labels).predict(test)


def _fitted(train: np.ndarray, labels: np.ndarray) -> Pipeline:
    count = min(*train.shape, _COMPONENTS)
    solver = "randomized" if count == _COMPONENTS else "full"
    turn = make_pipeline(StandardScaler(), PCA(count, svd_solver=solver, random_state=0))
    model = LogisticRegression(C=_STRENGTHS[1], tol=1e-5, max_iter=2000)
    if np.unique(labels, return_counts=True)[1].min() >= _FOLDS:
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        model = GridSearchCV(model, {"C": _STRENGTHS}, cv=folds, scoring="balanced_accuracy")
    return make_pipeline(turn, model).fit(train, labels)
