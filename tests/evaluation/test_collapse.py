import math

import pytest
import torch

from tacit.evaluation.collapse import effective_rank, feature_std


def test_rank_of_equal_features_is_zero():
    assert effective_rank(torch.full((50, 8), 3.7)) == 0.0
    assert feature_std(torch.full((50, 8), 3.7)) == pytest.approx(0, abs=1e-6)


def test_rank_of_a_line_is_one():
    direction = torch.arange(1.0, 9.0)
    features = torch.linspace(-1, 1, 50)[:, None] * direction + 5
    assert effective_rank(features) == pytest.approx(1.0, abs=1e-4)


def test_rank_of_equal_singular_values_is_their_number():
    # plus and minus the unit vectors of 4 of 8 dimensions: centred, 4 equal singular values
    features = torch.cat([torch.eye(4, 8), -torch.eye(4, 8)])
    assert effective_rank(features) == pytest.approx(4.0, abs=1e-9)


def test_rank_by_hand():
    # singular values 3 and 1: shares 3/4 and 1/4
    features = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]]) / math.sqrt(2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(features) == pytest.approx(math.exp(entropy), abs=1e-6)


def test_std_of_the_uniform_sphere_is_one():
    features = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1, abs=0.01)
    assert feature_std(features * torch.rand(20_000, 1)) == pytest.approx(feature_std(features), abs=1e-6)
