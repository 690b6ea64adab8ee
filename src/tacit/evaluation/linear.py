"""The linear probe: multinomial logistic regression on frozen features, its regularisation swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.evaluation.logistic import Logistic, Point

STRENGTHS = tuple(10.0**e for e in range(1, -7, -1))
"""From strong to weak: each begins at the solutions before it, which saves time and changes nothing else."""

Part = tuple[Tensor, Tensor]
"""Features (N, D) and labels (N,)."""


@dataclass(slots=True)
class LinearClassifier:
    """Weights of a probe on features that are standardised as its training features were."""

    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)
    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return F.linear((features.to(self.mean) - self.mean) / self.std, self.weight, self.bias)


def fit_linear(
    features: Tensor,
    labels: Tensor,
    classes: int,
    strength: float,
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """Minimise mean cross-entropy + strength / 2 |W|^2 on standardised features, to 1e-6 of the minimum.

    features: (N, D) floating. labels: (N,) in 0 .. classes-1. strength: above 0. The bias is not penalised;
    that of a class without a sample is -inf.
    start: any classifier of as many features and classes; a good one saves time, and changes the result by no
        more than the 1e-6.

    Raises:
        UsageError: nothing to learn from, shapes that do not fit, NaN, infinite numbers, or a strength not
            above 0.
    """
    problem = _Problem(features, labels, classes)
    return problem.classifier(problem.solve([strength], start)[0])


@dataclass(frozen=True, slots=True)
class Sweep:
    """A probe with the regularisation that was best on validation data, and how each one did."""

    classifier: LinearClassifier
    strength: float
    validation: dict[float, float]  # accuracy by strength


def sweep_linear(train: Part, validation: Part, classes: int) -> Sweep:
    """Choose the strength on validation data (the strongest of equals), then fit on both parts together.

    train, validation: (features (N, D), labels (N,)). Features are standardised by the part that is fitted.

    Raises:
        UsageError: as `fit_linear`.
    """
    problem = _Problem(*train, classes)
    found = dict(zip(STRENGTHS, map(problem.classifier, problem.solve(STRENGTHS)), strict=True))
    accuracy = {
        strength: (classifier.logits(validation[0]).argmax(1) == validation[1]).float().mean().item()
        for strength, classifier in found.items()
    }
    best = max(STRENGTHS, key=lambda strength: (accuracy[strength], strength))
    x, y = (torch.cat(parts) for parts in zip(train, validation, strict=True))
    return Sweep(fit_linear(x, y, classes, best, start=found[best]), best, accuracy)


class _Problem:
    """Logistic regression on features that it standardises."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        if features.ndim != 2 or labels.shape != features.shape[:1] or not features.numel():
            raise UsageError(
                f"logistic regression needs features (N, D) and labels (N,), not {tuple(features.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if labels.min() < 0 or labels.max() >= classes:
            least, most = int(labels.min()), int(labels.max())
            raise UsageError(
                f"labels must be from 0 to {classes - 1}, not {least} to {most}; leave out unlabelled samples"
            )
        if not features.isfinite().all():
            raise UsageError("features have NaN or infinite numbers; look at what the encoder gives")
        features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        self.mean, std = features.mean(0), features.std(0, correction=0)
        self.std = torch.where(std > 1e-6 * (1 + self.mean.abs()), std, torch.ones_like(std))
        x = (features - self.mean) / self.std
        self.classes = classes
        self.present, y = np.unique(labels.cpu().numpy(), return_inverse=True)
        self.logistic = Logistic(x.cpu().numpy(), y)

    def solve(self, strengths: Sequence[float], start: LinearClassifier | None = None) -> list[Point]:
        """The minimum for each strength; each search begins with those before it."""
        if min(strengths) <= 0:
            raise UsageError(f"the strength of regularisation must be above 0, not {min(strengths)}")
        found = [self.logistic.point(self._begin(start))]
        for strength in strengths:
            found.append(self.logistic.solve(strength, found[-1:-4:-1]))
        return found[1:]

    def classifier(self, point: Point) -> LinearClassifier:
        """In the type, and on the device, of the features."""
        found = torch.from_numpy(self.logistic.weight(point)).to(self.mean)
        weight = self.mean.new_zeros(self.classes, len(self.mean))
        bias = self.mean.new_full((self.classes,), -math.inf)
        weight[self.present], bias[self.present] = found[:, :-1], found[:, -1]
        return LinearClassifier(weight, bias, self.mean, self.std)

    def _begin(self, start: LinearClassifier | None) -> np.ndarray:
        """(K, D + 1) weights of the same function on these features as they are standardised here."""
        if start is None:
            return np.zeros((len(self.present), len(self.mean) + 1))
        scaled = start.weight[self.present].double() / start.std.double()
        bias = start.bias[self.present].double().nan_to_num(neginf=0.0)
        bias = bias + scaled @ (self.mean.double() - start.mean.double())
        return torch.cat([scaled * self.std.double(), bias[:, None]], 1).cpu().numpy()
