"""Noise that is a function of the sample: as normal as pixels need."""

import math

import torch
from scipy.stats import kstest, norm

from tacit.rng import Rng
from tacit.views.noise import pixel_noise


def test_pixel_noise_is_normal_and_independent():
    draw = pixel_noise(torch.arange(40), 5003, Rng.of(0)("noise"))
    assert draw.shape == (40, 5003)
    assert draw.dtype == torch.float32
    assert kstest(draw.flatten(), "norm").pvalue > 0.001
    x = draw.double()
    count = x.numel()
    for power, moment in [(1, 0), (2, 1), (3, 0), (4, 3), (6, 15)]:
        spread = math.sqrt(math.prod(range(1, 2 * power, 2)) / count)
        assert abs(x.pow(power).mean() - moment) < 4 * spread
    assert abs((draw.abs() > 3).double().mean() - 2 * norm.sf(3)) < 4 * math.sqrt(0.0027 / count)
    assert 4 < draw.abs().max() < 4.34
    for other in (
        x.roll(1, 1),
        x.roll(4, 1),
        x.roll(1, 0),
    ):  # within a hash, to the next one, to the next sample
        assert abs((x * other).mean()) < 4 / math.sqrt(count)
    assert abs((x.square() * x.roll(1, 1).square()).mean() - 1) < 4 * math.sqrt(8 / count)
    # one place over many samples
    assert kstest(pixel_noise(torch.arange(20000), 6, Rng.of(1))[:, 5], "norm").pvalue > 0.001


def test_pixel_noise_is_a_function_of_the_sample():
    index, rng = torch.tensor([5, 2**40, 7]), Rng.of(0)
    whole = pixel_noise(index, 10, rng)
    assert torch.equal(pixel_noise(index[1:2], 10, rng), whole[1:2])
    assert torch.equal(pixel_noise(index, 7, rng), whole[:, :7])
    assert not torch.equal(pixel_noise(index, 10, rng("other")), whole)
    assert pixel_noise(index[:0], 10, rng).shape == (0, 10)
