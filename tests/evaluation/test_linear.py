import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tacit.evaluation.linear import STRENGTHS, fit_linear, sweep_linear


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return torch.tensor(data.data[order], dtype=torch.float32), torch.tensor(data.target[order])


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_finds_the_minimum_that_scikit_learn_finds(digits, strength):
    x, y = digits[0][:600], digits[1][:600]
    ours = fit_linear(x, y, 10, strength)
    scaled = ((x - ours.mean) / ours.std).numpy()
    # scikit-learn minimises C * sum of losses + |W|^2 / 2
    peer = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(scaled, y)

    def objective(weight, bias):
        logits = torch.from_numpy(scaled).double() @ weight.double().T + bias.double()
        return (F.cross_entropy(logits, y) + strength / 2 * weight.double().square().sum()).item()

    best = objective(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_))
    assert objective(ours.weight, ours.bias) == pytest.approx(best, rel=1e-3)


def test_constant_features_do_no_harm(digits):
    x, y = digits[0][:200].clone(), digits[1][:200]
    x[:, 3] = 1e6
    assert torch.isfinite(fit_linear(x, y, 10, 1e-3).logits(x)).all()


def test_the_sweep_chooses_on_validation_and_prefers_the_stronger_of_equals(digits):
    x, y = digits
    sweep = sweep_linear((x[:300], y[:300]), (x[300:500], y[300:500]), 10)
    assert set(sweep.validation) == set(STRENGTHS)
    top = max(sweep.validation.values())
    assert sweep.strength == max(s for s, accuracy in sweep.validation.items() if accuracy == top)
    right = sweep.classifier.logits(x[500:]).argmax(1) == y[500:]
    assert right.float().mean() > 0.93


def test_the_sweep_fits_the_final_classifier_on_both_parts(digits):
    x, y = digits
    sweep = sweep_linear((x[:100], y[:100]), (x[100:300], y[100:300]), 10)
    direct = fit_linear(x[:300], y[:300], 10, sweep.strength)
    assert torch.allclose(sweep.classifier.mean, direct.mean)
    assert torch.allclose(sweep.classifier.weight, direct.weight, atol=1e-3)


def test_noise_is_answered_with_strong_regularisation():
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(400, 60, generator=draw), torch.randint(0, 2, (400,), generator=draw)
    x[:, 0] += 2.0 * y  # one informative feature among noise
    sweep = sweep_linear((x[:60], y[:60]), (x[60:300], y[60:300]), 2)
    assert sweep.strength >= 1e-2
