"""Block masks: how many blocks, where, and whose draw depends on what."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.mask import block_mask

RNG = Rng.of(0)("masks")


def test_the_masks_of_alice():
    index = torch.arange(5)
    mask = block_mask(5, (64, 64, 64), 16, 0.75, RNG("query"), index)
    assert mask.shape == (5, 1, 64, 64, 64)
    assert mask.dtype == torch.bool
    columns = mask[:, 0, ::16, ::16, 0]
    assert columns.flatten(1).sum(1).tolist() == [12] * 5
    assert torch.equal(mask, mask[..., :1].expand_as(mask))
    assert torch.equal(mask[:, 0, :, :, 0], columns.repeat_interleave(16, 1).repeat_interleave(16, 2))
    hidden = torch.rand(5, 1, 64, 64, 64).masked_fill(mask, 0)
    assert (hidden[mask] == 0).all()
    other = block_mask(5, (64, 64, 64), 16, 0.75, RNG("key"), index)
    assert all((a != b).any() for a, b in zip(mask, other, strict=True))
    assert all((a != b).any() for a, b in zip(mask, mask.roll(1, 0), strict=True))
    assert torch.equal(mask, block_mask(5, (64, 64, 64), 16, 0.75, RNG("query"), index))
    assert torch.equal(mask[[3, 1]], block_mask(2, (64, 64, 64), 16, 0.75, RNG("query"), index[[3, 1]]))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1000),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(1, 4),
    st.floats(0, 1),
    st.sampled_from(["column", "cube"]),
)
def test_exactly_so_many_blocks_are_hidden_whole(seed, size, block, ratio, shape):
    mask = block_mask(2, size, block, ratio, Rng.of(seed), torch.tensor([4, 9]), shape)
    assert mask.shape == (2, 1, *size)
    depth = block if shape == "cube" else size[2]
    corners = mask[:, 0, ::block, ::block, ::depth]
    n = corners[0].numel()
    assert n == math.ceil(size[0] / block) * math.ceil(size[1] / block) * math.ceil(size[2] / depth)
    for one, whole in zip(corners, mask[:, 0], strict=True):
        assert one.sum().item() == math.ceil(ratio * n - 1e-9)
        for axis, step in enumerate((block, block, depth)):
            one = one.repeat_interleave(step, axis)
        assert torch.equal(one[: size[0], : size[1], : size[2]], whole)


def test_every_block_is_hidden_as_often():
    mask = block_mask(4000, (4, 4, 2), 1, 0.25, RNG, torch.arange(4000), "cube")
    share = mask.float().mean(0)
    assert share.mean().item() == 0.25
    assert (share - 0.25).abs().max() < 0.03


def test_a_ratio_that_binary_cannot_hold_is_not_one_block_too_many():
    assert 0.07 * 100 > 7
    assert block_mask(1, (10, 10, 1), 1, 0.07, RNG, torch.zeros(1, dtype=torch.int64)).sum() == 7
    assert block_mask(1, (4, 4, 1), 1, 0.26, RNG, torch.zeros(1, dtype=torch.int64)).sum() == 5


def test_wrong_use():
    index = torch.arange(2)
    with pytest.raises(UsageError, match="unknown shape of a mask 'columns'; did you mean 'column'"):
        block_mask(2, (4, 4, 4), 2, 0.5, RNG, index, "columns")
    for block, ratio in ((2, 1.1), (2, -0.1), (0, 0.5), (2, math.nan)):
        with pytest.raises(UsageError, match="ratio must be from 0 to 1 and block at least 1"):
            block_mask(2, (4, 4, 4), block, ratio, RNG, index)
    with pytest.raises(UsageError, match="one number per sample, 3, got 2"):
        block_mask(3, (4, 4, 4), 2, 0.5, RNG, index)
