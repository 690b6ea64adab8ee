"""Whole views: the same choices made by torchvision one image at a time, and what must not matter."""

from dataclasses import asdict, replace

import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision.transforms.v2 import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views import image as image_views
from tacit.views.blur import usual_kernel_size
from tacit.views.image import Augment, augment_images, centre_view, draw_views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOTHING = Augment(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grayscale=0)
EVERYTHING = Augment(blur=0.5, solarise=0.5, hue=0.0, brightness=0.2, contrast=0.2, saturation=0.2)


@pytest.fixture(scope="module")
def images(photos):
    """24 dim crops of 48 x 48 pixels: nothing is clamped by default strengths."""
    photo = torch.from_numpy(photos["china"].copy()).permute(2, 0, 1)
    crops = [photo[:, 10 * i : 10 * i + 48, 20 * i : 20 * i + 48] for i in range(24)]
    return (80 + torch.stack(crops) * 0.25).to(torch.uint8)


def view(images, augment, *, index=None, rng=None, size=32, true_size=None, mean=MEAN, std=STD, **options):
    count, side = len(images), images.shape[-1]
    return augment_images(
        images,
        torch.full((count, 2), float(side)) if true_size is None else true_size,
        torch.arange(count) if index is None else index,
        rng or Rng.of(0)("view"),
        size=size,
        augment=augment,
        mean=mean,
        std=std,
        **options,
    )


@pytest.mark.parametrize("solarise", [0.0, 0.5])
@pytest.mark.parametrize("size", [32, 64, 37])
def test_view_is_what_torchvision_makes_of_the_same_choices(images, size, solarise):
    augment = replace(EVERYTHING, solarise=solarise, solarise_threshold=0.45)
    rng, index = Rng.of(7), torch.arange(len(images))
    ours = view(images, augment, rng=rng, size=size)
    choices = draw_views(torch.full((24, 2), 48.0), index, rng, augment, 3)
    jitter = image_views.draw_jitter(
        index,
        rng("colour"),
        probability=0.8,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0,
        grayscale=0.2,
    )
    adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
    kernel = usual_kernel_size(size)
    touched = set()
    for i, one in enumerate(images):
        box = choices.boxes[i].int().tolist()
        x = F.resized_crop(one.float() / 255, *box, [size, size], antialias=True)
        x = x.flip(-1) if choices.flip[i] else x
        for step in jitter.order[i].tolist():
            x = adjust[step](x, jitter[step][i].item())
        x = F.rgb_to_grayscale(x, 3) if jitter.grey[i] else x
        if sigma := choices.sigma[i].item():
            x = F.gaussian_blur(x, [kernel, kernel], [sigma, sigma])
        bright = solarise and choices.solarise[i]
        # pixels within rounding of the threshold may fall on either side
        unsure = (x - 0.45).abs() < 1e-5 if bright else torch.zeros_like(x, dtype=torch.bool)
        x = F.normalize(F.solarize(x, 0.45) if bright else x, MEAN, STD)
        torch.testing.assert_close(ours[i][~unsure], x[~unsure], atol=1e-4, rtol=0)
        touched |= {("flip", bool(choices.flip[i])), ("blur", sigma > 0), ("bright", bool(bright))}
    assert len(touched) == 5 + bool(solarise)


@pytest.mark.parametrize("augment", [Augment(), EVERYTHING])
def test_a_view_depends_on_its_own_sample_and_the_place_of_the_view_only(images, augment):
    index = torch.arange(100, 124)
    together = view(images, augment, index=index)
    order = torch.arange(23, -1, -2)
    torch.testing.assert_close(
        view(images[order], augment, index=index[order]), together[order], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(view(images[3:4], augment, index=index[3:4]), together[3:4], atol=1e-5, rtol=0)
    assert torch.equal(view(images, augment, index=index), together)
    other = view(images, augment, index=index, rng=Rng.of(0)("second"))
    assert ((other - together).abs().mean((1, 2, 3)) > 0.01).all()
    assert (view(images, augment, index=index + 1) - together).abs().mean() > 0.01


def test_choices_are_the_same_bits_in_every_batch():
    index, size = torch.arange(50), torch.tensor([[40.0, 60.0]]).repeat(50, 1)
    whole = draw_views(size, index, Rng.of(0), EVERYTHING, 3)
    part = draw_views(size[20:30], index[20:30], Rng.of(0), EVERYTHING, 3)
    for a, b in zip(whole.rows(slice(20, 30)), part, strict=True):
        assert torch.equal(torch.stack([*a]), torch.stack([*b]))


def test_changing_one_kind_of_choice_leaves_the_others(images):
    plain = view(images, replace(Augment(), jitter=0, grayscale=0))
    blurred = view(images, replace(Augment(), jitter=0, grayscale=0, blur=0.5))
    same = (plain == blurred).all(-1).all(-1).all(-1)
    assert 4 < same.sum() < 20


def test_chunks_do_not_show(images, monkeypatch):
    whole = view(images, EVERYTHING, size=64)
    monkeypatch.setattr(image_views, "_CHUNK_CPU", 5 * 4 * 3 * 64**2)
    torch.testing.assert_close(view(images, EVERYTHING, size=64), whole, atol=1e-5, rtol=0)


def test_no_probability_leaves_the_pixels(images):
    still = view(images, NOTHING, size=48, mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.testing.assert_close(still, images / 255, atol=1e-6, rtol=0)


def test_certain_flip_and_solarising(images):
    flipped = view(images, replace(NOTHING, flip=1.0, solarise=1.0, solarise_threshold=0.0), size=48)
    torch.testing.assert_close(flipped, F.normalize(1 - images.flip(-1) / 255, MEAN, STD), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channels(images, channels):
    some = images.repeat(1, 2, 1, 1)[:, :channels]
    result = view(some, replace(EVERYTHING, grayscale=1.0), mean=(0.5,) * channels, std=(0.2,) * channels)
    assert result.shape == (24, channels, 32, 32)
    assert result.isfinite().all()
    if channels > 1:  # taking colour out would have made the channels equal
        assert not torch.allclose(result[:, 0], result[:, 1])


def test_three_channels_that_are_no_colours_keep_their_proportions(images):
    greyed = view(images, replace(NOTHING, grayscale=1.0), mean=(0.5,) * 3, std=(0.2,) * 3)
    kept = view(images, replace(NOTHING, grayscale=1.0), mean=(0.5,) * 3, std=(0.2,) * 3, colour=False)
    torch.testing.assert_close(greyed[:, 0], greyed[:, 1])
    torch.testing.assert_close(kept, view(images, NOTHING, mean=(0.5,) * 3, std=(0.2,) * 3))


def test_autocast_and_the_global_state_do_not_matter(images):
    plain = view(images, EVERYTHING, size=64)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = view(images, EVERYTHING, size=64)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_pixel_views_and_images(images):
    assert view(images, EVERYTHING, size=1).shape == (24, 3, 1, 1)
    assert view(images[..., :1, :1], replace(EVERYTHING, blur=1.0), size=2).isfinite().all()


def test_crops_are_drawn_in_true_geometry():
    # a store of 32 x 32 of an image of 32 x 320: a crop of aspect 1 spans a tenth of the store's width
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(200, 1, 32, 32)
    true_size = torch.tensor([[32.0, 320.0]]).repeat(200, 1)
    square = replace(NOTHING, scale=(0.05, 0.1))
    crops = view(ramp, square, true_size=true_size, size=32, mean=(0.0,), std=(1.0,)) * 255 / 8
    spans = crops[:, 0, 0, -1] - crops[:, 0, 0, 0]
    assert (spans < 3.3).all()
    assert (spans > 1.2).all()


def test_centre_view_is_the_central_square_of_the_true_image(photos):
    photo = torch.from_numpy(photos["china"].copy()).permute(2, 0, 1)  # 427 x 640
    store = F.resize(photo, [256, 256], antialias=True)[None]
    still = centre_view(store, torch.tensor([[427.0, 640.0]]), size=64, mean=MEAN, std=STD)
    direct = F.resize(F.center_crop(photo, [427, 427]), [64, 64], antialias=True)
    exact = F.normalize(direct.float() / 255, MEAN, STD)
    assert (still[0] - exact).abs().mean() < 0.06
    shifted = F.normalize(F.resize(photo[:, :, 140:567], [64, 64]).float() / 255, MEAN, STD)
    assert (still[0] - shifted).abs().mean() > 0.2
    square = centre_view(store, torch.tensor([[256.0, 256.0]]), size=256, mean=MEAN, std=STD)
    torch.testing.assert_close(square[0], F.normalize(store[0] / 255, MEAN, STD), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"flip": 1.5}, "augment.flip must be from 0 to 1, not 1.5"),
        ({"jitter": -0.1}, "augment.jitter"),
        ({"grayscale": float("nan")}, "augment.grayscale"),
        ({"blur": 2}, "augment.blur"),
        ({"solarise": 2}, "augment.solarise"),
        ({"solarise_threshold": 128}, "augment.solarise_threshold"),
        ({"brightness": -1}, "augment.brightness must be at least 0, not -1"),
        ({"contrast": float("inf")}, "augment.contrast"),
        ({"saturation": -0.1}, "augment.saturation"),
        ({"hue": 0.6}, "augment.hue must be from 0 to 0.5"),
        ({"scale": (0.5, 0.2)}, "augment.scale"),
        ({"scale": (0.5, 1.2)}, "at most 1"),
        ({"ratio": (0.0, 1.0)}, "augment.ratio"),
        ({"blur_sigma": (0.0, 1.0)}, "augment.blur_sigma"),
    ],
)
def test_impossible_settings_are_named(fields, words):
    with pytest.raises(UsageError, match=words):
        Augment(**fields)


def test_a_wrong_index_is_named(images):
    with pytest.raises(UsageError, match="index must be one number per image"):
        view(images, Augment(), index=torch.arange(3))


def test_the_command_line_documents_and_sets_every_field():
    parser = ArgumentParser()
    parser.add_class_arguments(Augment, "augment")
    words = parser.format_help()
    for name in asdict(Augment()):
        assert f"--augment.{name}" in words
    assert "probability of mirroring" in words
    parsed = parser.parse_args(["--augment.scale=[0.2,1]", "--augment.blur=0.5"]).augment
    assert Augment(**vars(parsed)) == Augment(scale=(0.2, 1.0), blur=0.5)
