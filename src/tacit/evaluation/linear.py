"""The linear probe: multinomial logistic regression on frozen features, its regularisation swept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = tuple(10.0**e for e in range(1, -7, -1))  # from strong to weak: each starts at the last solution


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
    """Minimise mean cross-entropy + strength / 2 |W|^2 by L-BFGS (torch), on standardised features.

    features: (N, D); labels: (N,) in 0 .. classes-1. The bias is not penalised. `start` warm-starts.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))
    x = (features - mean) / std
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device)
    if start is not None:
        weight, bias = start.weight.clone(), start.bias.clone()
    weight.requires_grad_()
    bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=200,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearClassifier(weight.detach(), bias.detach(), mean, std)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A probe with the regularisation that was best on validation data, and how each one did."""

    classifier: LinearClassifier
    strength: float
    validation: dict[float, float]  # accuracy by strength


def sweep_linear(train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], classes: int) -> Sweep:
    """Choose the strength on validation data (the strongest of equals), then fit on both parts together.

    train, validation: (features (N, D), labels (N,)).
    """
    accuracy: dict[float, float] = {}
    found: dict[float, LinearClassifier] = {}
    classifier = None
    for strength in STRENGTHS:
        classifier = found[strength] = fit_linear(*train, classes, strength, start=classifier)
        right = classifier.logits(validation[0]).argmax(1) == validation[1]
        accuracy[strength] = right.float().mean().item()
    best = max(STRENGTHS, key=lambda strength: (accuracy[strength], strength))
    both = (torch.cat([train[0], validation[0]]), torch.cat([train[1], validation[1]]))
    return Sweep(fit_linear(*both, classes, best, start=found[best]), best, accuracy)
