"""What is drawn for a warp: distributions, independence, settings."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from scipy.stats import binomtest, chisquare, kstest

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.colour import Normal
from tacit.views.warp import NATURAL_WEAK, STRONG, Warp, WarpChoices, draw_choices, render

STILL = Warp(rotate=0, zoom=0, shift=0, noise=0)
EVERYTHING = replace(
    STRONG,
    noise=0.2,
    randaugment=2,
    quarter_turns=0.5,
    flip=0.5,
    brightness=0.3,
    contrast=0.3,
    gamma=(0.5, 2.0),
    noise_floor=0.0,
    noise_probability=0.7,
)


def test_motions_are_uniform_and_independent():
    warp = Warp(rotate=40, zoom=0.2, shift=0.1, flip=0.3)
    x, y = draw_choices(torch.arange(6000), Rng.of(3), warp, 32).affine.double().unbind(1)
    flipped = x[:, 0] < 0
    x = torch.where(flipped[:, None], -x, x)
    determinant = x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]
    zoom = determinant.rsqrt()
    angle = torch.atan2(y[:, 0], x[:, 0]).rad2deg()
    matrix = torch.stack([x[:, :2], y[:, :2]], 1)
    shift = torch.linalg.solve(matrix, -torch.stack([x[:, 2], y[:, 2]], 1)) / 2
    draws = [angle / 40, (zoom - 1) / 0.2, shift[:, 0] / 0.1, shift[:, 1] / 0.1]
    for draw in draws:
        assert kstest(draw, "uniform", (-1, 2)).pvalue > 0.001
    correlation = np.corrcoef(np.stack([*draws, flipped]))
    assert np.abs(correlation - np.eye(5)).max() < 0.05
    assert binomtest(int(flipped.sum()), 6000, 0.3).pvalue > 0.001


def test_factors_exponents_and_strengths_are_uniform():
    warp = Warp(
        brightness=0.4,
        contrast=1.5,
        gamma=(0.5, 1.5),
        gamma_probability=0.25,
        noise=0.3,
        noise_floor=1 / 3,
        noise_probability=0.6,
    )
    choices = draw_choices(torch.arange(6000), Rng.of(4), warp, 32)
    assert kstest(choices.light[:, 0], "uniform", (0.6, 0.8)).pvalue > 0.001
    assert kstest(choices.light[:, 1], "uniform", (0.0, 2.5)).pvalue > 0.001
    assert np.abs(np.corrcoef(choices.light.T)[0, 1]) < 0.05
    changed = choices.gamma[choices.gamma != 1]
    assert binomtest(len(changed), 6000, 0.25).pvalue > 0.001
    assert kstest(changed, "uniform", (0.5, 1.0)).pvalue > 0.001
    noisy = choices.noise[choices.noise != 0]
    assert binomtest(len(noisy), 6000, 0.6).pvalue > 0.001
    assert kstest(noisy, "uniform", (0.1, 0.2)).pvalue > 0.001


def test_what_has_no_strength_is_not_drawn():
    index, rng = torch.arange(5), Rng.of(0)
    none = replace(STILL, gamma=(0.5, 2.0), gamma_probability=0.0, noise=0.1, noise_probability=0.0)
    assert draw_choices(index, rng, none, 8) == WarpChoices()
    for field, value, part in [
        ("rotate", 5, "affine"),
        ("zoom", 0.1, "affine"),
        ("shift", 0.1, "affine"),
        ("flip", 0.5, "affine"),
        ("brightness", 0.1, "light"),
        ("contrast", 0.1, "light"),
        ("gamma", (0.5, 1.0), "gamma"),
        ("noise", 0.1, "noise"),
        ("cutout", 0.1, "hole"),
    ]:
        choices = draw_choices(index, rng, replace(STILL, **{field: value}), 8)
        assert [name for name, x in choices._asdict().items() if x is not None] == [part]


def test_a_strength_of_its_own_changes_nothing_else():
    index, rng = torch.arange(50), Rng.of(0)
    whole = draw_choices(index, rng, EVERYTHING, 32)
    for part, fields in [
        ("light", {"brightness": 0.0, "contrast": 0.0}),
        ("gamma", {"gamma": (1.0, 1.0)}),
        ("operations", {"randaugment": 0}),
        ("noise", {"noise": 0.0}),
        ("hole", {"cutout": 0.0}),
    ]:
        less = draw_choices(index, rng, replace(EVERYTHING, **fields), 32)
        assert getattr(less, part) is None
        for other in {*WarpChoices._fields} - {part}:
            assert torch.equal(getattr(less, other), getattr(whole, other))
    dim = draw_choices(index, rng, replace(EVERYTHING, contrast=0.0), 32).light
    assert torch.equal(dim[:, 0], whole.light[:, 0])
    assert (dim[:, 1] == 1).all()


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 40), count=st.integers(1, 10), seed=st.integers(0, 5))
def test_choices_are_the_same_bits_in_every_batch(start, count, seed):
    index = torch.arange(50) * 977
    whole = draw_choices(index, Rng.of(seed), EVERYTHING, 32)
    rows = slice(start, start + count)
    part = draw_choices(index[rows], Rng.of(seed), EVERYTHING, 32)
    for a, b in zip(whole.rows(rows), part, strict=True):
        assert torch.equal(a, b)


def test_whole_pixel_shifts_are_uniform():
    choices = draw_choices(torch.arange(9000), Rng.of(1), NATURAL_WEAK, 32)
    down = choices.affine[:, 1, 2] * -16
    flipped = choices.affine[:, 0, 0] < 0
    right = choices.affine[:, 0, 2] * torch.where(flipped, 16, -16)
    for pixels in (down, right):
        assert torch.equal(pixels, pixels.round())
        values, counts = pixels.unique(return_counts=True)
        assert values.tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
        assert chisquare(counts).pvalue > 0.001
    assert binomtest(int(flipped.sum()), 9000, 0.5).pvalue > 0.001
    pairs = np.unique(np.stack([down, right]), axis=1, return_counts=True)[1]
    assert len(pairs) == 81
    assert chisquare(pairs).pvalue > 0.001


def test_the_centre_of_the_cutout_is_uniform_over_the_view():
    hole = draw_choices(torch.arange(6400), Rng.of(0), replace(STILL, cutout=3 / 8), 8).hole
    assert (hole[:, 1] - hole[:, 0] == 3).all()
    centres, counts = (hole[:, 0] + 1).unique(dim=0, return_counts=True)
    assert centres.min() == 0
    assert centres.max() == 7
    assert len(counts) == 64
    assert chisquare(counts).pvalue > 0.001
    # 3 of 8 pixels at six places and 2 at the two at the ends, in both axes
    white, sizes = torch.ones(6400, 1, 8, 8), torch.full((6400, 2), 8.0)
    choices, normal = WarpChoices(hole=hole), Normal.none(1)
    views = render(white, sizes, torch.arange(6400), choices, Rng.of(0), size=8, normal=normal)
    assert (views == 0).float().mean().item() == pytest.approx((22 / 64) ** 2, rel=0.02)


@pytest.mark.parametrize(("cutout", "size", "side"), [(0.01, 8, 1), (0.3, 8, 2), (0.5, 7, 4), (1.0, 8, 8)])
def test_the_cutout_has_whole_pixels(cutout, size, side):
    hole = draw_choices(torch.arange(9), Rng.of(0), replace(STILL, cutout=cutout), size).hole
    assert (hole[:, 1] - hole[:, 0] == side).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rotate": 181}, "warp.rotate must be from 0 to 180, not 181"),
        ({"rotate": -1}, "warp.rotate"),
        ({"zoom": 1.0}, "warp.zoom must be at least 0 and below 1, not 1.0"),
        ({"zoom": -0.1}, "warp.zoom"),
        ({"zoom": float("nan")}, "warp.zoom"),
        ({"shift": 1.1}, "warp.shift"),
        ({"flip": 1.5}, "warp.flip must be from 0 to 1, not 1.5"),
        ({"brightness": -0.1}, "warp.brightness must be at least 0, not -0.1"),
        ({"contrast": float("inf")}, "warp.contrast"),
        ({"gamma": (0.0, 1.0)}, "warp.gamma must be two numbers above 0"),
        ({"gamma": (2.0, 1.0)}, "the smaller first, not \\[2.0, 1.0\\]"),
        ({"gamma": (1.0, float("inf"))}, "warp.gamma"),
        ({"gamma": (1.0,)}, "warp.gamma"),
        ({"gamma_probability": 2}, "warp.gamma_probability"),
        ({"noise": float("nan")}, "warp.noise must be at least 0"),
        ({"noise_floor": 1.2}, "warp.noise_floor"),
        ({"noise_probability": -1}, "warp.noise_probability"),
        ({"cutout": 1.5}, "warp.cutout"),
    ],
)
def test_impossible_settings_are_named(fields, words):
    with pytest.raises(UsageError, match=words):
        Warp(**fields)


def test_the_command_line_documents_and_sets_every_field():
    parser = ArgumentParser()
    parser.add_class_arguments(Warp, "weak")
    words = " ".join(parser.format_help().split())
    for name in asdict(Warp()):
        assert f"--weak.{name}" in words
    assert "probability of mirroring" in words
    parsed = parser.parse_args(["--weak.gamma=[0.5,1.5]", "--weak.noise=0.2"]).weak
    assert Warp(**vars(parsed)) == Warp(gamma=(0.5, 1.5), noise=0.2)
