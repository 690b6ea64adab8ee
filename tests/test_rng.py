import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tacit.rng import Rng, seeded


def splitmix(state: int, count: int) -> list[int]:
    """The generator as its authors wrote it, in Python's whole numbers."""
    out, mask = [], 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_bits_are_splitmix64_started_at_a_hash_of_the_sample():
    rng = Rng.of(3)("views", 5)
    index = torch.tensor([0, 1, 17, 2**40])
    got = rng.bits(index, 6)
    for row, i in zip(got, index.tolist(), strict=True):
        # a row starts where one splitmix step from key + (i - 1) * golden leads
        start = splitmix((rng.key + (i - 1) * 0x9E3779B97F4A7C15) & (2**64 - 1), 1)[0]
        assert [value & (2**64 - 1) for value in row.tolist()] == splitmix(start, 6)


def test_known_value_of_splitmix64():
    # first output for seed 0, as published with the xoshiro generators
    assert splitmix(0, 1)[0] == 0xE220A8397B1DCDAF


def test_a_sample_draws_the_same_in_any_batch():
    rng = Rng.of(0)("views", 300)
    whole = rng.uniform(torch.arange(1000), 7)
    assert torch.equal(rng.uniform(torch.tensor([17, 900, 3]), 7), whole[[17, 900, 3]])


def test_paths_differ_and_repeat():
    root = Rng.of(0)
    keys = [
        root("a").key,
        root("b").key,
        root("a", 1).key,
        root("a", "1").key,
        root("a")(1).key,
        Rng.of(1)("a").key,
    ]
    assert len(set(keys)) == len(keys)
    assert root("a", 1).key == Rng.of(0)("a", 1).key


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 2**31))
def test_uniform_is_in_range_and_uniform(seed, offset):
    values = Rng.of(seed).uniform(torch.arange(offset, offset + 4096), 4)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    # 16,384 draws: the largest gap to the uniform distribution exceeds 2.23 / sqrt(n) once in 10,000 times
    gap = stats.kstest(values.flatten().numpy(), "uniform").statistic
    assert gap < 2.23 / np.sqrt(values.numel())


def test_normal_has_the_right_tails():
    values = Rng.of(1).normal(torch.arange(50_000), 4).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert np.isfinite(values).all()
    assert 3.8 < values.max() < 6


def test_columns_and_neighbouring_samples_are_uncorrelated():
    values = Rng.of(2).normal(torch.arange(40_000), 3).numpy()
    pairs = [(values[:, 0], values[:, 1]), (values[:, 1], values[:, 2]), (values[1:, 0], values[:-1, 0])]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(40_000)


def test_generators_do_not_touch_the_global_state():
    before = torch.get_rng_state()
    rng = Rng.of(5)
    rng.uniform(torch.arange(3), 2)
    rng.permutation(10)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(rng("init")):
        first = torch.randn(4)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(rng("init")):
        assert torch.equal(torch.randn(4), first)
    with seeded(rng("other")):
        assert not torch.equal(torch.randn(4), first)


def test_numpy_and_torch_generators_repeat():
    rng = Rng.of(9)("cut", 4, 17)
    assert rng.numpy().random() == rng.numpy().random()
    assert torch.equal(rng.permutation(50), rng.permutation(50))
    assert sorted(rng.permutation(50).tolist()) == list(range(50))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_draws_what_the_cpu_draws():
    rng, index = Rng.of(0)("views"), torch.arange(500)
    assert torch.equal(rng.uniform(index.cuda(), 9).cpu(), rng.uniform(index, 9))
