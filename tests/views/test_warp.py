"""Warps against hand-made references, one operation at a time, and what must not matter."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torchvision.transforms.v2 import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views import warp as warps
from tacit.views.colour import Normal
from tacit.views.image import centre_view
from tacit.views.noise import pixel_noise
from tacit.views.warp import (
    KNEE,
    NATURAL_STRONG,
    NATURAL_WEAK,
    STRONG,
    WEAK,
    Warp,
    WarpChoices,
    affine_maps,
    draw_choices,
    render,
    warp_images,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = Warp(rotate=0, zoom=0, shift=0, noise=0)
EVERYTHING = replace(
    STRONG,
    noise=0.2,
    flip=0.5,
    brightness=0.3,
    contrast=0.3,
    gamma=(0.5, 2.0),
    noise_floor=0.0,
    noise_probability=0.7,
)


@pytest.fixture(scope="module")
def images(photos):
    """24 crops of 32 x 32 pixels, (24, 3, 32, 32) uint8."""
    photo = torch.from_numpy(photos["china"][::2, ::2].copy()).permute(2, 0, 1)
    return torch.stack([photo[:, 60 + 5 * i : 92 + 5 * i, 10 * i : 10 * i + 32] for i in range(24)])


def squares(images):
    return torch.full((len(images), 2), float(images.shape[-1]))


def view(images, warp, *, index=None, rng=None, size=32, true_size=None, normal=None, per_channel=False):
    """The view, not normalised if not asked for."""
    mean, std = normal or Normal.none(images.shape[1])
    return warp_images(
        images,
        squares(images) if true_size is None else true_size,
        torch.arange(len(images)) if index is None else index,
        rng or Rng.of(0)("view"),
        size=size,
        warp=replace(warp, per_channel=per_channel),
        mean=mean,
        std=std,
    )


def rendered(images, *, size=32, index=None, **choices):
    return render(
        images,
        squares(images),
        torch.arange(len(images)) if index is None else index,
        WarpChoices(**choices),
        Rng.of(0)("pixels"),
        size=size,
        normal=Normal.none(images.shape[1]),
    )


def affine(count, angle=0.0, zoom=1.0, shift=(0.0, 0.0), flip=False):
    numbers = torch.tensor([[angle, zoom, *shift]]).repeat(count, 1)
    return affine_maps(numbers[:, 0], numbers[:, 1], numbers[:, 2:], torch.full((count,), flip))


def slow(image, angle, zoom, shift, flip):
    """The same of one (S, S) image in float64, pixel by pixel."""
    side = len(image)
    image = image[:, ::-1] if flip else image
    turn = math.radians(angle)
    places = np.empty((2, side, side))
    for row in range(side):
        for column in range(side):
            up = -(row + 0.5 - side / 2 - shift[0] * side) / zoom
            right = (column + 0.5 - side / 2 - shift[1] * side) / zoom
            # turned back, so clockwise
            x = right * math.cos(turn) + up * math.sin(turn)
            y = up * math.cos(turn) - right * math.sin(turn)
            places[:, row, column] = side / 2 - y - 0.5, side / 2 + x - 0.5
    return map_coordinates(image, places, order=1, mode="reflect")  # a b c | c b a


@pytest.mark.parametrize("size", [32, 24, 48])
@pytest.mark.parametrize("shape", [(32.0, 32.0), (20.0, 50.0), (70.0, 40.0)])
def test_a_still_warp_is_the_centre_view(images, size, shape):
    true_size = torch.tensor([shape]).repeat(24, 1)
    still = centre_view(images, true_size, size=size, mean=MEAN, std=STD)
    assert torch.equal(view(images, STILL, size=size, true_size=true_size, normal=(MEAN, STD)), still)
    assert draw_choices(torch.arange(3), Rng.of(0), STILL, size) == WarpChoices()
    nearly = replace(STILL, rotate=1e-5)  # through all of the resampling
    moved = view(images, nearly, size=size, true_size=true_size, normal=(MEAN, STD))
    torch.testing.assert_close(moved, still, atol=1e-4, rtol=0)


def test_the_central_square_of_the_true_image_is_warped():
    # a store of 32 x 32 of an image of 32 x 320: the square is a tenth of the store's width
    ramp = torch.arange(32.0).div(31).expand(50, 1, 32, 32)
    true_size = torch.tensor([[32.0, 320.0]]).repeat(50, 1)
    views = view(ramp, Warp(rotate=180, zoom=0.3, shift=0.4, noise=0), true_size=true_size) * 31
    # what moves in is the square's own reflection, not the true image beside it
    assert 13.8 < views.min() < 14.2
    assert 16.8 < views.max() < 17.2


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_quarter_turns_are_counter_clockwise_and_exact(images, quarters):
    turned = rendered(images, affine=affine(24, 90.0 * quarters))
    torch.testing.assert_close(turned, torch.rot90(images / 255, quarters, (2, 3)), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("angle", "zoom", "shift", "flip"),
    [
        (20.0, 1.0, (0.0, 0.0), False),
        (0.0, 1.3, (0.0, 0.0), False),
        (0.0, 0.6, (0.0, 0.0), True),
        (0.0, 1.0, (0.2, -0.13), False),
        (0.0, 1.0, (0.9, 0.0), False),
        (-35.0, 0.8, (-0.1, 0.15), False),
        (115.0, 1.2, (0.3, 0.25), True),
    ],
)
def test_motions_equal_a_slow_reference(images, angle, zoom, shift, flip):
    moved = rendered(images[:2], affine=affine(2, angle, zoom, shift, flip))
    for i, channel in [(0, 0), (1, 2)]:
        wanted = slow(images[i, channel].double().numpy() / 255, angle, zoom, shift, flip)
        torch.testing.assert_close(moved[i, channel].double(), torch.from_numpy(wanted), atol=2e-5, rtol=0)


def test_motions_equal_torchvisions_where_the_image_is_known(images):
    moved = rendered(images[:4], affine=affine(4, 25.0, 0.8, (0.125, -0.25)))
    options = {"angle": -25.0, "translate": [-8, 4], "scale": 0.8, "shear": [0.0, 0.0]}
    options["interpolation"] = F._geometry.InterpolationMode.BILINEAR
    theirs = F.affine(images[:4] / 255, **options)
    known = F.affine(torch.ones(32, 32)[None], **options)[0] == 1
    assert 200 < known.sum() < 700
    torch.testing.assert_close(moved[..., known], theirs[..., known], atol=2e-5, rtol=0)


def test_a_certain_flip_mirrors(images):
    torch.testing.assert_close(
        view(images, replace(STILL, flip=1.0)), images.flip(-1) / 255, atol=2e-5, rtol=0
    )


def test_nothing_is_black_that_moves_in():
    white = torch.full((60, 1, 16, 16), 255, dtype=torch.uint8)
    views = view(white, Warp(rotate=180, zoom=0.9, shift=1.0, noise=0), size=16)
    torch.testing.assert_close(views, torch.ones_like(views), atol=1e-5, rtol=0)


@pytest.mark.parametrize("warp", [replace(STILL, shift=0.125), replace(NATURAL_WEAK, flip=0.0)])
def test_shifts_alone_are_by_whole_pixels(images, warp):
    views = view(images, warp)
    padded = np.pad(images.numpy() / 255, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="symmetric")
    found = set()
    for i, one in enumerate(views.numpy()):
        crops = np.lib.stride_tricks.sliding_window_view(padded[i], (32, 32), (1, 2))  # (3, 9, 9, 32, 32)
        error = np.abs(crops - one[:, None, None]).max((0, 3, 4))
        assert error.min() < 2e-5
        found.add(np.unravel_index(error.argmin(), error.shape))
    assert len(found) > 12


def test_a_smaller_view_is_the_still_view_moved(images):
    small = centre_view(images, squares(images), size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    turned = rendered(images, size=16, affine=affine(24, 90.0))
    torch.testing.assert_close(turned, torch.rot90(small, 1, (2, 3)), atol=2e-5, rtol=0)


def test_brightness_and_contrast_are_torchvisions_for_grey_images(images):
    grey = (0.3 + 0.3 * images[:8, :1] / 255).float()
    light = torch.tensor(
        [[0.7, 1.0], [1.3, 1.0], [1.0, 0.4], [1.0, 1.5], [0.8, 1.4], [1.3, 0.0], [0, 2], [1, 1]]
    )
    lit = rendered(grey, light=light)
    for i, (brightness, contrast) in enumerate(light.tolist()):
        wanted = F.adjust_contrast(F.adjust_brightness(grey[i], brightness), contrast)
        torch.testing.assert_close(lit[i], wanted, atol=1e-5, rtol=0)


def test_contrast_is_about_the_mean_of_all_channels_and_ends_are_clamped():
    image = torch.stack([torch.full((4, 4), x) for x in (0.1, 0.5, 0.9)])[None]  # mean 0.5
    for light, wanted in [([1, 0.5], (0.3, 0.5, 0.7)), ([1, 2], (0, 0.5, 1)), ([1.5, 1], (0.15, 0.75, 1))]:
        lit = rendered(image, size=4, light=torch.tensor([light], dtype=torch.float32))
        torch.testing.assert_close(lit[0, :, 1, 2], torch.tensor(wanted, dtype=torch.float32))


def test_gamma_is_an_exponent_for_those_that_have_one(images):
    gamma = torch.ones(24)
    gamma[3], gamma[7] = 0.5, 2.0
    result = rendered(images, gamma=gamma)
    still = rendered(images)
    rest = torch.ones(24, dtype=torch.bool)
    rest[[3, 7]] = False
    assert torch.equal(result[rest], still[rest])
    torch.testing.assert_close(result[3], still[3].sqrt())
    torch.testing.assert_close(result[7], still[7].square())


def test_order_is_geometry_light_gamma_noise_normalising_cutout(images):
    index, rng = torch.arange(24), Rng.of(5)("view")
    warp = replace(EVERYTHING, gamma_probability=1.0, noise_probability=1.0)
    choices = draw_choices(index, rng, warp, 32)
    x = rendered(images, affine=choices.affine).double()
    brightness, contrast = choices.light.double()[:, :, None, None, None].unbind(1)
    x = x * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = ((x - mean) * contrast + mean).clamp(0, 1) ** choices.gamma.double()[:, None, None, None]
    noise = pixel_noise(index, 3 * 32 * 32, rng("pixels")).view_as(x)
    x = x + noise * choices.noise[:, None, None, None]
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    for i, ((top, left), (bottom, right)) in enumerate(choices.hole.clamp(min=0).tolist()):
        x[i, :, top:bottom, left:right] = 0
    ours = view(images, warp, rng=rng, normal=(MEAN, STD))
    torch.testing.assert_close(ours.double(), x, atol=5e-5, rtol=0)


def test_noise_has_its_strength_in_units_of_the_range(images):
    warp = replace(STILL, noise=0.1)
    normal = Normal((0.5, 0.4, 0.3), (0.2, 0.5, 1.0))
    noise = view(images, warp, normal=normal) - view(images, STILL, normal=normal)
    for channel, std in enumerate((0.5, 0.2, 0.1)):
        assert noise[:, channel].std().item() == pytest.approx(std, rel=0.02)
        each = noise[:, channel].std((1, 2)) / std
        assert each.min() > 0.9  # one strength for all
        assert each.max() < 1.1
    assert noise.mean().abs() < 0.01
    assert np.abs(np.corrcoef(noise.transpose(0, 1).flatten(1)) - np.eye(3)).max() < 0.03


def test_noise_is_not_clamped_and_leaves_the_others():
    white = torch.full((24, 1, 32, 32), 255, dtype=torch.uint8)
    std = torch.arange(24.0) % 3 * 0.1
    noise = rendered(white, noise=std) - 1
    torch.testing.assert_close(noise.std((1, 2, 3)), std, atol=0.01, rtol=0)
    assert (noise[std > 0].mean((1, 2, 3)).abs() < 0.03).all()
    torch.testing.assert_close(noise[std == 0], torch.zeros(8, 1, 32, 32), atol=1e-6, rtol=0)


def test_cutout_erases_one_square_with_zeros_after_normalising(images):
    views = view(images, Warp(cutout=0.25), normal=(MEAN, STD))
    erased = (views == 0).all(1)
    holes = draw_choices(torch.arange(24), Rng.of(0)("view"), Warp(cutout=0.25), 32).hole
    assert (holes[:, 1] - holes[:, 0] == 8).all()
    for one, hole in zip(erased, holes, strict=True):
        (top, left), (bottom, right) = hole.clamp(0, 32).tolist()
        assert one[top:bottom, left:right].all()
        assert one.sum() == (bottom - top) * (right - left)
    assert erased.sum((1, 2)).max() == 64
    rest = view(images, Warp(), normal=(MEAN, STD))
    assert torch.equal(views.masked_fill(erased[:, None], 0), rest.masked_fill(erased[:, None], 0))


@pytest.mark.parametrize("warp", [WEAK, STRONG, KNEE, NATURAL_WEAK, NATURAL_STRONG, EVERYTHING])
def test_a_view_depends_on_its_own_sample_and_the_place_of_the_view_only(images, warp):
    index = torch.arange(100, 124)
    together = view(images, warp, index=index)
    assert together.shape == (24, 3, 32, 32)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    order = torch.arange(23, -1, -2)
    again = view(images[order], warp, index=index[order])
    torch.testing.assert_close(again, together[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(view(images[3:4], warp, index=index[3:4]), together[3:4], atol=1e-5, rtol=0)
    assert torch.equal(view(images, warp, index=index), together)
    other = view(images, warp, index=index, rng=Rng.of(0)("second"))
    assert ((other - together).abs().mean((1, 2, 3)) > 0.01).float().mean() > 0.9
    assert (view(images, warp, index=index + 1) - together).abs().mean() > 0.01


@pytest.mark.parametrize("per_channel", [False, True])
def test_chunks_do_not_show(images, monkeypatch, per_channel):
    normal = (MEAN, STD)
    whole = view(images, EVERYTHING, normal=normal, per_channel=per_channel)
    monkeypatch.setattr(warps, "_CHUNK_CPU", 5 * 4 * 3 * 32**2)
    parts = view(images, EVERYTHING, normal=normal, per_channel=per_channel)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_types_and_strides_do_not_matter(images):
    whole = view(images, EVERYTHING)
    for same in (
        images / 255,
        images.double() / 255,
        images.to(memory_format=torch.channels_last),
        images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    ):
        torch.testing.assert_close(view(same, EVERYTHING), whole, atol=2e-5, rtol=0)
        apart = view(same, EVERYTHING, per_channel=True)
        torch.testing.assert_close(apart, view(images, EVERYTHING, per_channel=True), atol=2e-5, rtol=0)


def test_autocast_the_global_state_and_the_images_are_left_alone(images):
    plain = view(images, EVERYTHING)
    torch.manual_seed(3)
    state, floating = torch.get_rng_state(), images / 255
    before = floating.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = view(images, EVERYTHING)
    view(floating, EVERYTHING)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(floating, before)


def test_extreme_shapes(images):
    assert view(images, EVERYTHING, size=1).isfinite().all()
    assert view(images[..., :1, :1], EVERYTHING, size=2).isfinite().all()
    assert view(images[:0], EVERYTHING).shape == (0, 3, 32, 32)
    five = images.repeat(1, 2, 1, 1)[:, :5]
    assert view(five, EVERYTHING, size=7).shape == (24, 5, 7, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views(images):
    here = view(images, EVERYTHING)
    there = view(
        images.cuda(), EVERYTHING, index=torch.arange(24, device="cuda"), true_size=squares(images).cuda()
    )
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)


def test_per_channel_every_channel_is_an_image_of_its_own(images):
    index = torch.arange(24) + 7
    apart = view(images, EVERYTHING, index=index, normal=(MEAN, STD), per_channel=True)
    for channel in range(3):
        alone = view(
            images[:, channel : channel + 1],
            EVERYTHING,
            index=index * 3 + channel,
            normal=(MEAN[channel : channel + 1], STD[channel : channel + 1]),
        )
        torch.testing.assert_close(apart[:, channel : channel + 1], alone, atol=1e-5, rtol=0)


def test_equal_channels_part_per_channel_only(images):
    twice = images[:, :1].repeat(1, 2, 1, 1)
    warp = replace(KNEE, noise=0.0)
    together = view(twice, warp)
    assert torch.equal(together[:, 0], together[:, 1])
    apart = view(twice, warp, per_channel=True)
    assert ((apart[:, 0] - apart[:, 1]).abs().mean((1, 2)) > 0.001).all()


def test_per_channel_keeps_true_sizes_and_one_channel_as_it_is(images):
    true_size = torch.tensor([[20.0, 50.0], [32.0, 32.0]] * 12)
    still = centre_view(images, true_size, size=24, mean=MEAN, std=STD)
    options = {"true_size": true_size, "size": 24, "normal": (MEAN, STD), "per_channel": True}
    torch.testing.assert_close(view(images, STILL, **options), still, atol=1e-5, rtol=0)
    grey = images[:, :1]
    assert torch.equal(view(grey, EVERYTHING, per_channel=True), view(grey, EVERYTHING))


def test_what_does_not_fit_together_is_named(images):
    with pytest.raises(UsageError, match=r"index must be one number per image, \(24,\)"):
        view(images, WEAK, index=torch.arange(3))
    with pytest.raises(UsageError, match="images must be"):
        view(images[..., :20], WEAK)
    with pytest.raises(UsageError, match="true_size must be"):
        view(images, WEAK, true_size=torch.ones(24, 1))
    with pytest.raises(UsageError, match="3 channels, but mean has 1"):
        view(images, WEAK, normal=((0.5,), (0.5,)), per_channel=True)
    with pytest.raises(UsageError, match="size must be at least 1"):
        view(images, WEAK, size=0)
