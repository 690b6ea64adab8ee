"""Colour matrices against torchvision's adjustments, one after another."""

from itertools import permutations

import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms.v2 import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.colour import (
    GREY,
    Jitter,
    Normal,
    apply_colour,
    colour_matrices,
    draw_jitter,
    normalise_,
    solarise,
)

STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}


def torchvision(image, jitter, i):
    adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
    for step in jitter.order[i].tolist():
        image = adjust[step](image, jitter[step][i].item())
    return F.rgb_to_grayscale(image, len(image)) if jitter.grey[i] else image


def jitter_of(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, order=(0, 1, 2, 3), grey=False):
    numbers = (torch.tensor([x]) for x in (brightness, contrast, saturation, hue))
    return Jitter(*numbers, torch.tensor([order]), torch.tensor([grey]))


def crops_of(photo):
    """Nine crops of 96 x 96 pixels, float from 0 to 1."""
    corners = [(y, x) for y in (0, 100, 220) for x in (0, 200, 400)]
    chosen = [torch.from_numpy(photo[y : y + 192 : 2, x : x + 192 : 2].copy()) for y, x in corners]
    return torch.stack(chosen).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def crops(photos):
    return torch.cat([crops_of(photo) for photo in photos.values()])


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_each_order_equals_torchvisions_where_nothing_is_clamped(crops, order):
    images = 0.35 + 0.3 * crops[:6, :, ::2, ::2]
    hue = torch.zeros(6)
    jitter = Jitter(
        torch.linspace(0.8, 1.2, 6),
        torch.tensor([1.4, 0.6, 0, 1.2, 0.8, 1]),
        torch.tensor([0.7, 1.2, 1.1, 0, 1, 0.9]),
        hue,
        torch.tensor([order]).repeat(6, 1),
        torch.tensor([False, False, False, False, True, True]),
    )
    exact = torch.stack([torchvision(image, jitter, i) for i, image in enumerate(images)])
    assert exact.min() > 0
    assert exact.max() < 1
    torch.testing.assert_close(apply_colour(images, colour_matrices(jitter, 3)), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("hue", "roll"), [(0.0, 0), (1 / 3, 1), (-1 / 3, -1)])
def test_hue_by_a_third_renames_the_channels_as_in_hsv(crops, hue, roll):
    turned = apply_colour(crops[:1], colour_matrices(jitter_of(hue=hue), 3))
    torch.testing.assert_close(turned, crops[:1].roll(roll, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(turned, F.adjust_hue(crops[:1], hue), atol=1e-5, rtol=0)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.07, 0.25])
def test_hue_turns_about_the_grey_axis_in_the_direction_of_hsv(hue):
    pixel = torch.tensor([0.55, 0.45, 0.5])[None, :, None, None]
    turned = apply_colour(pixel, colour_matrices(jitter_of(hue=hue), 3))
    assert turned.mean().item() == pytest.approx(0.5, abs=1e-6)
    assert (turned - 0.5).norm().item() == pytest.approx((pixel - 0.5).norm().item(), abs=1e-6)
    assert (turned - F.adjust_hue(pixel, hue)).abs().max() < 0.025
    assert (turned - F.adjust_hue(pixel, -hue)).abs().max() > 0.025 or abs(hue) == 0.5


@pytest.mark.parametrize(
    ("name", "hue", "average"),
    [("china", 0, 0.0015), ("flower", 0, 0.0026), ("china", 0.1, 0.007), ("flower", 0.1, 0.019)],
)
def test_clamping_once_and_turning_hues_stay_within_the_stated_tolerance(photos, name, hue, average):
    images = crops_of(photos[name]).repeat(40, 1, 1, 1)
    index = torch.arange(len(images))
    jitter = draw_jitter(index, Rng.of(3), probability=0.8, **STRENGTHS, hue=hue, grayscale=0.2)
    exact = torch.stack([torchvision(image, jitter, i) for i, image in enumerate(images)])
    wrong = (apply_colour(images, colour_matrices(jitter, 3)) - exact).abs().mean((1, 2, 3))
    assert wrong.mean().item() == pytest.approx(average, rel=0.15)
    assert wrong.max() <= 0.1


def test_the_result_is_clamped():
    image = torch.tensor([0.1, 0.9]).repeat(8)[None, None, :, None].repeat(1, 3, 1, 1)
    result = apply_colour(image, colour_matrices(jitter_of(brightness=1.4, contrast=1.4), 3))
    assert result.max() == 1
    # mean 0.7 after brightness, then 1.4 * (0.14 - 0.7) + 0.7 < 0; the grey weights add up to 0.9999
    assert result.min() == 0


def test_one_pixel_by_hand():
    # red 0.5 with a blue mean of the image: brightness 0.5, then contrast 0.5 about the mean grey
    image = torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 1.0]])[None, :, :, None]
    result = apply_colour(image, colour_matrices(jitter_of(brightness=0.5, contrast=0.5), 3))
    grey = 0.5 * (0.2989 * 0.25 + 0.114 * 0.5) * 0.5
    expected = torch.tensor([[0.125, 0.0], [0.0, 0.0], [0.0, 0.25]]) + grey
    torch.testing.assert_close(result[0, :, :, 0], expected)


def test_no_change_is_no_change(crops):
    result = apply_colour(crops[:1], colour_matrices(jitter_of(), 3))
    torch.testing.assert_close(result, crops[:1], atol=1e-6, rtol=0)


def test_grey_images_have_the_weights_of_rec_601(crops):
    result = apply_colour(crops[:1], colour_matrices(jitter_of(grey=True), 3))
    expected = (crops[0] * torch.tensor(GREY)[:, None, None]).sum(0)
    torch.testing.assert_close(result[0], expected.expand(3, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 3])
def test_other_channels_get_brightness_and_contrast_only(crops, channels):
    image = 0.3 + 0.3 * crops[:5, 0][:channels][None]
    jitter = jitter_of(1.1, 0.5, 0.2, 0.3, (1, 3, 2, 0), True)
    result = apply_colour(image, colour_matrices(jitter, channels, colour=False))
    torch.testing.assert_close(result, 1.1 * (0.5 * image + 0.5 * image.mean()), atol=1e-5, rtol=0)
    if channels == 1:
        theirs = F.adjust_brightness(F.adjust_contrast(image, 0.5), 1.1)
        torch.testing.assert_close(result, theirs, atol=1e-5, rtol=0)


def test_normalising_in_the_same_pass_equals_normalising_after(crops):
    jitter = draw_jitter(torch.arange(18), Rng.of(0), probability=1, **STRENGTHS, hue=0.1, grayscale=0.2)
    matrices, normal = (
        colour_matrices(jitter, 3),
        Normal.of((0.5, 0.4, 0.3), torch.tensor([0.2, 0.3, 0.4]), 3),
    )
    after = F.normalize(apply_colour(crops, matrices), normal.mean, normal.std)
    torch.testing.assert_close(apply_colour(crops, matrices, normal), after, atol=2e-5, rtol=0)
    torch.testing.assert_close(
        normalise_(crops.clone(), normal), F.normalize(crops, *normal), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.2,) * 2), ((0.5,), (0.2,)), ((0.5,) * 3, (0.2, 0.2, 0))]
)
def test_wrong_normalising_numbers_are_named(mean, std):
    with pytest.raises(UsageError, match="std"):
        Normal.of(mean, std, 3)


def test_draws_have_torchvisions_ranges_and_probabilities():
    index = torch.arange(20_000)
    jitter = draw_jitter(
        index,
        Rng.of(5),
        probability=0.8,
        brightness=0.4,
        contrast=1.5,
        saturation=0.2,
        hue=0.1,
        grayscale=0.2,
    )
    drawn = jitter.hue != 0
    assert drawn.float().mean().item() == pytest.approx(0.8, abs=0.012)
    assert jitter.grey.float().mean().item() == pytest.approx(0.2, abs=0.012)
    assert (jitter.grey & drawn).float().mean().item() == pytest.approx(0.16, abs=0.012)
    for values, low, high in zip(jitter[:4], (0.6, 0, 0.8, -0.1), (1.4, 2.5, 1.2, 0.1), strict=True):
        assert kstest(values[drawn].numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3
    for values in jitter[:3]:
        assert (values[~drawn] == 1).all()
    codes, counts = (jitter.order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)
    assert len(codes) == 24
    assert (jitter.order.sort(1).values == torch.arange(4)).all()
    assert ((counts - 20_000 / 24).abs() < 5 * (20_000 / 24) ** 0.5).all()


def test_a_draw_depends_on_its_own_sample_only():
    strengths = {"probability": 0.8, **STRENGTHS, "hue": 0.1, "grayscale": 0.2}
    together = draw_jitter(torch.tensor([4, 7, 9]), Rng.of(0), **strengths)
    alone = draw_jitter(torch.tensor([7]), Rng.of(0), **strengths)
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[1:2], b)


def test_solarising_equals_torchvisions(crops):
    assert torch.equal(solarise(crops, 0.4), F.solarize(crops, 0.4))
    assert solarise(torch.tensor([0.25, 0.5, 0.75]), 0.5).tolist() == [0.25, 0.5, 0.25]
