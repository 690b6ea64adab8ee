"""Regression from labels alone: the loss by hand, the unit of the values, what moves and what is read."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, Spec
from tacit.encoders.card import attach_card
from tacit.errors import UsageError
from tacit.methods.parts.teacher import momentum_at
from tacit.methods.regression.supervised_regression import SupervisedRegression
from tacit.rng import Rng, seeded
from tacit.views.warp import Warp

STILL = Warp(rotate=0, zoom=0, shift=0)
HALF = Step(50, 100, 0, 1)
RNG = Rng.of(0)("views", 50)
LEARNED = [2000.0, 2010.0, 2040.0]


class Pixels(nn.Module):
    """A linear map of the pixels, without randomness or statistics."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return self.map(x.flatten(1))


def source(values=LEARNED):
    known = np.array([*values, np.nan, np.nan])
    made = Source(
        Spec("image", (3, 16, 16), target="value"), [""] * len(known), np.where(np.isnan(known), -1, 0)
    )
    made.values = known
    return made


def make(data=None, **options):
    with seeded(Rng.of(0)("test")):
        encoder = attach_card(Pixels(), channels=3, size=16, num_features=4)
        method = SupervisedRegression(encoder, **{"weak": STILL, **options})
        method.train().prepare(data or source())
    return method


def batch(seed=0, target=LEARNED):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (8, 3, 16, 16), generator=draw, dtype=torch.uint8)
    sizes = torch.full((8, 2), 16.0)
    return Batch(
        Samples(pixels[:5], torch.arange(5), extra={"true_size": sizes[:5]}),
        Samples(pixels[5:], torch.arange(3), target=torch.tensor(target), extra={"true_size": sizes[5:]}),
    )


def losses(method, data=None):
    return method.losses(method.views(data or batch(), RNG, HALF), HALF)


def test_the_loss_is_the_mean_squared_error_of_standardised_values():
    method, data = make(), batch()
    found = losses(method, data)
    assert list(found) == ["supervised"]
    pixels = data.labelled.data.double() / 255
    form = method.encoder.card.form
    clean = (pixels - torch.tensor(form.mean).view(3, 1, 1)) / torch.tensor(form.std).view(3, 1, 1)
    features = clean.flatten(1) @ method.encoder.map.weight.double().T + method.encoder.map.bias
    linear = method.head.linear
    outputs = (features @ linear.weight.double().T + linear.bias)[:, 0]
    mean = 2016.6666666
    scale = np.sqrt(((2000 - mean) ** 2 + (2010 - mean) ** 2 + (2040 - mean) ** 2) / 3)
    wanted = torch.tensor([(y - mean) / scale for y in LEARNED])
    assert found["supervised"].item() == pytest.approx(((outputs - wanted) ** 2).mean().item(), rel=1e-4)


def test_the_head_knows_the_unit_of_the_learned_values():
    method = make()
    assert method.head.mean.item() == pytest.approx(np.mean(LEARNED))
    assert method.head.scale.item() == pytest.approx(np.std(LEARNED))
    with torch.no_grad():
        method.head.linear.weight.zero_()
        method.head.linear.bias.zero_()
    network = method._network
    assert network[1](network[0](torch.zeros(2, 3, 16, 16))).tolist() == pytest.approx([np.mean(LEARNED)] * 2)
    assert losses(method)["supervised"].item() == pytest.approx(1)  # what the mean scores


def test_what_is_learned_does_not_depend_on_the_unit():
    grown = [1000 * v - 7 for v in LEARNED]
    first = losses(make(), batch())["supervised"]
    again = losses(make(source(grown)), batch(target=grown))["supervised"]
    assert again.item() == pytest.approx(first.item(), rel=1e-4)


def test_the_unit_is_in_the_state():
    method, other = make(), make(source([0.0, 1.0]))
    other.load_state_dict(method.state_dict())
    for head in (other.head, other.average[1]):
        assert head.mean == method.head.mean
        assert head.scale == method.head.scale


def test_nothing_but_the_labels_is_used():
    method, data = make(), batch()
    first = losses(method, data)["supervised"]
    data.unlabelled.data.fill_(7)
    assert torch.equal(losses(method, data)["supervised"], first)
    data.labelled.target[0] += 1
    assert not torch.equal(losses(method, data)["supervised"], first)


def test_the_average_follows_and_gets_no_gradient():
    method = make(ema=0.9)
    losses(method)["supervised"].backward()
    before = copy.deepcopy(method.average)
    assert all(p.grad is None for p in method.average.parameters())
    with torch.no_grad():
        for p in method._network.parameters():
            assert p.grad.abs().sum() > 0
            p.add_(1)
    method.after_step(HALF)
    share = momentum_at(HALF, 0.9)
    trained = method._network.parameters()
    for old, new, p in zip(before.parameters(), method.average.parameters(), trained, strict=True):
        torch.testing.assert_close(new, share * old + (1 - share) * p)
    assert method.average[1].mean == method.head.mean
    assert method.average[1].scale == method.head.scale


def test_what_is_kept():
    method = make(ema=0.9)
    assert method.candidates == ("averaged", "trained")
    assert method.network.head is method.average[1]
    with torch.no_grad():
        method.head.linear.weight.add_(1)
    method.kept = "trained"
    assert method.network.head is method.head
    method.kept = "averaged"
    method.finish(source())
    assert torch.equal(method.head.linear.weight, method.average[1].linear.weight)
    assert make(ema=0.0).candidates == ("trained",)


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0]])
def test_one_value_is_nothing_to_learn(values):
    with pytest.raises(UsageError, match="two different values or more"):
        make(source(values))


def test_mistakes_are_one_line():
    with pytest.raises(UsageError, match="ema must lie in"):
        make(ema=1.0)
    data = batch()
    data.labelled = None
    with pytest.raises(UsageError, match="learns from values, and the batch has none"):
        losses(make(), data)


def test_views_are_a_function_of_the_step():
    method = make(weak=Warp())
    first, again = (method.views(batch(), RNG, HALF).labelled for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, method.views(batch(), Rng.of(0)("views", 51), HALF).labelled)
