"""Logistic regression reaches the optimum that scikit-learn's solvers reach, wherever it begins."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.evaluation.linear import STRENGTHS, LinearClassifier, _Problem, fit_linear


def digits(count=150):
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:count]
    return torch.tensor(data.data[order], dtype=torch.float32), torch.tensor(data.target[order])


def correlated(count=240, width=30, classes=4):
    """Features that hardly vary in most directions, as those of untrained networks, and labels with noise."""
    draw = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -3, width)
    x = (torch.randn(count, width, generator=draw) * scales) @ torch.randn(width, width, generator=draw)
    y = (x[:, :classes] / x[:, :classes].std(0) + torch.randn(count, classes, generator=draw)).argmax(1)
    return x, y


def outliers():
    """Few features, many classes, and two samples that are thousands of times larger than the others."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(100, 3, generator=draw)
    x[7, 0] *= 1e4
    x[40, 2] *= 1e4
    return x, torch.arange(100) % 30


def wide():
    """Fewer samples than features."""
    x, y = digits(40)
    return x, y


DATA = {"digits": digits, "correlated": correlated, "wide": wide, "outliers": outliers}


def objective(classifier, x, y, strength):
    """In float64, of the float32 features that were fitted."""
    scaled = ((x - classifier.mean) / classifier.std).double()
    logits = scaled @ classifier.weight.double().T + classifier.bias.double()
    return (F.cross_entropy(logits, y) + strength / 2 * classifier.weight.double().square().sum()).item()


def optimum(x, y, classes, strength):
    """What scikit-learn's Newton method finds in float64."""
    begun = fit_linear(x, y, classes, 1.0)
    scaled = ((x - begun.mean) / begun.std).double().numpy()
    model = LogisticRegression(
        C=1 / (strength * len(x)), solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(scaled, y.numpy())
    peer = LinearClassifier(
        torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_), begun.mean, begun.std
    )
    return objective(peer, x, y, strength)


@pytest.mark.parametrize("name", DATA)
def test_every_strength_of_the_sweep_reaches_scikit_learns_optimum(name):
    x, y = DATA[name]()
    classes = int(y.max()) + 1
    problem = _Problem(x, y, classes)
    for strength, point in zip(STRENGTHS, problem.solve(STRENGTHS), strict=True):
        best = optimum(x, y, classes, strength)
        found = objective(problem.classifier(point), x, y, strength)
        assert found <= best * (1 + 1e-6), strength
        assert point.value == pytest.approx(found, rel=1e-6), strength


@pytest.mark.parametrize("strength", [1e-2, 1e-6])
@pytest.mark.parametrize("name", ["correlated", "digits"])
def test_the_minimum_does_not_depend_on_where_the_search_begins(name, strength):
    x, y = DATA[name]()
    classes = int(y.max()) + 1
    cold = objective(fit_linear(x, y, classes, strength), x, y, strength)
    draw = torch.Generator().manual_seed(1)
    far = LinearClassifier(
        3 * torch.randn(classes, x.shape[1], generator=draw),
        torch.randn(classes, generator=draw),
        torch.zeros(x.shape[1]),
        torch.ones(x.shape[1]),
    )
    for begin in (fit_linear(x, y, classes, 10.0), fit_linear(x[:60], y[:60], classes, 1e-5), far):
        warm = objective(fit_linear(x, y, classes, strength, start=begin), x, y, strength)
        assert warm == pytest.approx(cold, rel=1e-6)


def test_two_samples_by_hand():
    """Standardised -1 and 1: W = (-w, w), log(1 + e^-2w) + s w^2, the minimum where 1 / (1 + e^2w) = s w."""
    x, y = torch.tensor([[3.0], [7.0]]), torch.tensor([0, 1])
    w = 0.7
    strength = 1 / (1 + math.exp(2 * w)) / w
    found = fit_linear(x, y, 2, strength)
    assert found.mean.item() == 5.0
    assert found.std.item() == 2.0
    assert found.weight[:, 0].tolist() == pytest.approx([-w, w], rel=1e-3)
    assert found.bias.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_without_a_useful_feature_the_biases_are_the_log_shares():
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    found = fit_linear(torch.full((10, 4), 7.0), y, 3, 1e-6)
    torch.testing.assert_close(found.bias.softmax(0), torch.tensor([0.6, 0.3, 0.1]), atol=1e-3, rtol=0)


def test_a_class_without_a_sample_is_never_predicted_and_changes_nothing_else():
    x, y = digits()
    kept = y != 4
    found, direct = (
        fit_linear(x[kept], labels, classes, 1e-3)
        for labels, classes in ((y[kept], 11), (y[kept] - (y[kept] > 4).long(), 9))
    )
    logits = found.logits(x)
    assert (logits[:, [4, 10]] == -math.inf).all()
    others = [c for c in range(10) if c != 4]
    torch.testing.assert_close(logits[:, others], direct.logits(x))
    again = fit_linear(x, y, 11, 1e-3, start=found)  # class 4 has samples now
    assert objective(again, x, y, 1e-3) == pytest.approx(
        objective(fit_linear(x, y, 10, 1e-3), x, y, 1e-3), rel=1e-6
    )


def test_one_class_and_one_sample():
    x, y = digits(20)
    assert (fit_linear(x, torch.full_like(y, 2), 3, 1e-6).logits(x).argmax(1) == 2).all()
    assert fit_linear(x[:1], y[:1], 10, 1e-6).logits(x).argmax(1).tolist() == [int(y[0])] * 20


def test_types_of_the_features_are_kept_and_halves_are_widened():
    x, y = digits(60)
    for given, kept in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
    ):
        found = fit_linear(x.to(given), y, 10, 1e-2)
        assert found.weight.dtype == found.bias.dtype == kept
        torch.testing.assert_close(
            found.logits(x).double(), fit_linear(x, y, 10, 1e-2).logits(x).double(), atol=2e-2, rtol=0
        )


def test_wrong_use_is_named():
    x, y = digits(20)
    for call, words in (
        (
            lambda: fit_linear(x, y[:5], 10, 1.0),
            r"features \(N, D\) and labels \(N,\), not \(20, 64\) and \(5,\)",
        ),
        (lambda: fit_linear(x[:0], y[:0], 10, 1.0), r"not \(0, 64\)"),
        (lambda: fit_linear(x, y, 5, 1.0), "labels must be from 0 to 4, not 0 to 9"),
        (lambda: fit_linear(x, y - 1, 10, 1.0), "not -1 to 8; leave out unlabelled samples"),
        (lambda: fit_linear(x / 0, y, 10, 1.0), "NaN or infinite"),
        (lambda: fit_linear(x, y, 10, 0.0), "must be above 0, not 0.0"),
    ):
        with pytest.raises(UsageError, match=words):
            call()


def test_two_samples_of_many_features():
    """Their classes become certain, to float32, before the weakest strengths are reached."""
    x = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1])
    for strength in STRENGTHS:
        found = fit_linear(x, y, 2, strength)
        w = found.weight.double().square().sum().div(2).sqrt().item()
        # the reduced problem has one feature of 300 equal ones: |x| = sqrt 300
        assert 1 / (1 + math.exp(2 * w * math.sqrt(300))) * math.sqrt(300) == pytest.approx(
            strength * w, rel=1e-2
        )
