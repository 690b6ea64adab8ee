"""BatchNorm's running statistics: when they are said not to fit, and how they are estimated again."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tacit.evaluation.batch_statistics import Modes, by_batch, estimate_again, even_parts, tracking_layers
from tacit.rng import Rng


@pytest.mark.parametrize(
    ("evaluation", "training", "pictures", "apart"),
    [
        (0.80, 0.91, 100_000, True),
        (0.80, 0.89, 100_000, False),  # less than ten points
        (0.50, 0.625, 100, True),  # 2 sqrt(0.625 * 0.375 / 100) = 0.097
        (0.50, 0.625, 50, False),  # 0.137
        (0.50, 0.70, 10, False),  # 2 sqrt(0.7 * 0.3 / 10) = 0.290
        (0.40, 0.70, 10, True),
        (0.88, 1.00, 10, False),  # no error at all counts as a variance of 0.05: 0.141
        (0.85, 1.00, 10, True),
        (0.00, 1.00, 1, True),  # 0.447
        (0.60, 1.00, 1, False),
        (0.95, 0.10, 100_000, False),  # the better way round
        (0.70, 0.70, 100_000, False),
    ],
)
def test_modes_are_apart_by_ten_points_and_two_standard_errors(evaluation, training, pictures, apart):
    assert Modes(evaluation, training, pictures).apart is apart


def test_modes_without_pictures_and_in_words():
    assert not Modes(0.0, 0.0, 0).apart
    assert str(Modes(0.125, 0.98765, 50)) == "12.5 % in evaluation mode, 98.8 % in training mode"


def network():
    """Two layers that track, one that does not, one that drops."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, momentum=0.2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 1),
        nn.BatchNorm2d(5),
        nn.BatchNorm2d(5, track_running_stats=False),
    )
    with torch.no_grad():
        for layer in tracking_layers(net):
            layer.running_mean.normal_()
            layer.running_var.uniform_(1, 3)
            layer.weight.normal_()
            layer.bias.normal_()
    return net


def state(net):
    return copy.deepcopy(net.state_dict())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_only_batchnorm_with_running_statistics_counts():
    net = network()
    assert tracking_layers(net) == [net[1], net[5]]
    assert tracking_layers(nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4))) == []


def test_by_batch_normalises_by_the_batch_and_leaves_all_as_it_was():
    net = network().eval()
    net[5].train()  # layers may be in different modes
    modes, before = [m.training for m in net.modules()], state(net)
    x = 3 + 2 * torch.randn(16, 3, 8, 8)
    with torch.no_grad(), by_batch(net):
        found = net(x)
        assert [net[i].training for i in (0, 2, 3, 4)] == [False] * 4
    assert [m.training for m in net.modules()] == modes
    assert [net[i].track_running_stats for i in (1, 5, 6)] == [True, True, False]
    assert same(state(net), before)

    def normal(x, layer):
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)

    expected = normal(net[4](normal(net[0](x), net[1]).relu()), net[5])  # in eval mode nothing is dropped
    expected = normal(expected, net[6])
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert (net.eval()(x) - expected).abs().max() > 0.1


def test_by_batch_by_hand():
    norm = nn.BatchNorm1d(2, affine=False, eps=1e-12).eval()
    with by_batch(norm):
        found = norm(torch.tensor([[1.0, 10.0], [3.0, 20.0]]))
    torch.testing.assert_close(found, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(norm(torch.tensor([[1.0, 10.0]])), torch.tensor([[1.0, 10.0]]))


def test_by_batch_takes_its_change_back_after_an_error():
    net = network().eval()
    before = state(net)
    with pytest.raises(RuntimeError, match="channels"), by_batch(net):
        net(torch.randn(4, 7, 8, 8))
    assert not any(m.training for m in net.modules())
    assert [layer.track_running_stats for layer in (net[1], net[5])] == [True, True]
    assert same(state(net), before)


@pytest.mark.parametrize("training", [False, True])
def test_statistics_are_the_means_over_equal_parts(training):
    net = network()
    net[3].p = 0.0
    net.train(training)
    weights = [p.clone() for p in net.parameters()]
    parts = [torch.randn(8, 3, 6, 6) * scale + shift for scale, shift in ((1, 0), (2, 1), (0.5, -3))]
    estimate_again(net, iter(parts))
    assert net.training is training
    assert [layer.momentum for layer in (net[1], net[5])] == [0.2, 0.1]
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), weights, strict=True))

    slow = copy.deepcopy(net).double()
    first, second = [], []
    for part in parts:
        x = F.conv2d(part.double(), slow[0].weight, slow[0].bias)
        first.append((x.mean((0, 2, 3)), x.var((0, 2, 3))))
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), correction=0, keepdim=True) + slow[1].eps
        ) ** 0.5
        x = x * slow[1].weight[:, None, None] + slow[1].bias[:, None, None]
        x = F.conv2d(x.relu(), slow[4].weight, slow[4].bias)
        second.append((x.mean((0, 2, 3)), x.var((0, 2, 3))))
    for layer, seen in ((net[1], first), (net[5], second)):
        mean, variance = (torch.stack(values).mean(0).float() for values in zip(*seen, strict=True))
        torch.testing.assert_close(layer.running_mean, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.running_var, variance, atol=1e-5, rtol=1e-5)


def test_what_the_statistics_were_before_does_not_matter():
    one, other = network(), network()
    one[1].running_mean.fill_(1e3)
    one[5].num_batches_tracked.fill_(1000)
    parts = [torch.randn(8, 3, 6, 6) for _ in range(3)]
    for net in (one, other):
        net[3].p = 0.0
        estimate_again(net, parts)
    assert same(state(one), state(other))


@pytest.mark.parametrize(
    ("count", "parts"), [(1, 1), (32, 1), (256, 1), (257, 2), (512, 2), (513, 3), (1000, 4)]
)
def test_parts_hold_each_position_once_and_are_of_one_size(count, parts):
    positions = 7 * np.arange(count) + 3
    found = even_parts(positions, Rng.of(0)("parts").numpy())
    assert len(found) == parts
    assert np.array_equal(np.sort(np.concatenate(found)), positions)
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1


def test_parts_mix_classes_and_are_a_function_of_the_generator():
    labels = np.repeat(np.arange(10), 100)  # as class folders are listed
    found = even_parts(np.arange(1000), Rng.of(0)("parts").numpy())
    for part in found:
        counts = np.bincount(labels[part], minlength=10)
        assert counts.min() >= 10
        assert counts.max() <= 45
    again = even_parts(np.arange(1000), Rng.of(0)("parts").numpy())
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    other = even_parts(np.arange(1000), Rng.of(1)("parts").numpy())
    assert not np.array_equal(found[0], other[0])


def test_dropout_is_off_while_statistics_are_estimated():
    """Evaluation has none: behind half of dropout the variance would be three times as large."""
    layers = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    batches = list((5 + torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(0))).unbind(0))
    estimate_again(layers, batches)
    everything = torch.cat(batches)
    torch.testing.assert_close(layers[1].running_mean, everything.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(layers[1].running_var, everything.var(0), atol=0.02, rtol=0)
    assert layers[0].training
    assert layers[1].training


def test_layers_that_the_user_put_into_another_mode_stay_in_it():
    layers = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).train()
    layers[0].eval()
    estimate_again(layers, [torch.randn(50, 3)])
    assert [layer.training for layer in layers] == [False, True]
