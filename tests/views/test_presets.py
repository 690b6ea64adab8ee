"""Which preset is chosen, what it leaves of a method's own views, and what its views never do."""

from dataclasses import asdict, replace
from string import ascii_lowercase, digits

import pytest
import torch

from tacit.errors import UsageError
from tacit.methods.clustering.swav import AUGMENT
from tacit.rng import Rng
from tacit.views.image import Augment, augment_images
from tacit.views.presets import PRESETS, SMALL, choose
from tacit.views.warp import KNEE, NATURAL_STRONG, NATURAL_WEAK, STRONG, WEAK, Warp, warp_images

MIRROR = {"photos", "microscopy"}
SIDED = sorted(set(PRESETS) - MIRROR)
LETTERS = tuple(ascii_lowercase)


def squares(images):
    return torch.full((len(images), 2), float(images.shape[-1]))


def warped(image, warp, count, size=None):
    """Views of one (C, S, S) uint8 image, (count, C, size, size) in 0..1; what is erased is 0."""
    images, channels = image.expand(count, -1, -1, -1), len(image)
    place = {"size": size or image.shape[-1], "mean": [0.0] * channels, "std": [1.0] * channels}
    index, rng = torch.arange(count), Rng.of(0)("view")
    return warp_images(images, squares(images), index, rng, warp=warp, **place)


def still(image, size):
    return warped(image, Warp(rotate=0, zoom=0, shift=0), 1, size)[0]


def alike(views, image):
    """Correlation of every view with an image, (B,)."""
    views, image = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (views, image[None]))
    return (views * image).sum(1) / (views.norm(dim=1) * image.norm()).clamp_min(1e-9)


@pytest.fixture(scope="module")
def sided(photos):
    """A grey photograph, (1, 160, 160) uint8: half a flower, bright, and the dark ground beside it.

    Its correlation with its mirror image is -0.7, so that with a turn by 30 degrees, a shift by 15 % and a
    hole it is still more like itself.
    """
    grey = photos["flower"][150:310, 360:520].mean(2).round()
    image = torch.from_numpy(grey).to(torch.uint8)[None]
    assert alike(image.float()[None], image.float().flip(2)) < -0.6
    return image


# choose


@pytest.mark.parametrize(
    ("channels", "classes", "name"),
    [
        (3, (), "photos"),
        (4, (), "photos"),
        (3, tuple(digits), "photos"),
        (1, (), "greys"),
        (2, (), "greys"),
        (1, ("0", "1"), "greys"),
        (1, tuple(digits), "digits"),
        (1, LETTERS, "digits"),
        (1, tuple(digits)[:9], "greys"),
        (1, (*digits, "10"), "greys"),
        (1, (*digits, "-"), "greys"),
        (1, ("cat", "dog"), "greys"),
    ],
)
def test_the_preset_follows_colours_and_class_names(channels, classes, name):
    choice = choose(None, channels=channels, classes=classes)
    assert choice.name == name
    assert choice.preset is PRESETS[name]
    assert choice.why
    assert choice.warnings == ()


def test_the_reason_counts_channels():
    assert "1 channel and" in choose(None, channels=1).why
    assert "2 channels and" in choose(None, channels=2).why


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_asked_for_comes_first(name, channels):
    choice = choose(name, channels=channels, classes=tuple(digits))
    assert (choice.name, choice.why) == (name, "as asked for")
    assert choice.preset is PRESETS[name]


@pytest.mark.parametrize(
    ("word", "hint"),
    [("photo", "did you mean 'photos'"), ("Digits", "did you mean 'digits'"), ("zzz", "greys")],
)
def test_an_unknown_preset_is_one_line_with_a_hint(word, hint):
    with pytest.raises(UsageError, match=hint) as error:
        choose(word, channels=3)
    assert f"views '{word}'" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "classes",
    [
        ("left", "right"),
        ("knee_left", "knee_right", "other"),
        ("Knee-Left", "knee-right"),
        ("L", "R"),
        ("links", "rechts"),
    ],
)
def test_classes_that_are_mirror_images_warn_where_views_mirror(name, classes):
    warnings = choose(name, channels=3, classes=classes).warnings
    assert len(warnings) == (name in MIRROR)
    assert all("mirror" in text and "--views greys" in text and "\n" not in text for text in warnings)


@pytest.mark.parametrize(
    "classes",
    [("left", "other"), ("bright", "rightful", "leftover"), ("cat", "dog"), ("left", "left_out"), ()],
)
@pytest.mark.parametrize("name", sorted(MIRROR))
def test_other_classes_do_not(name, classes):
    assert choose(name, channels=3, classes=classes).warnings == ()


def test_colours_that_are_chosen_by_themselves_warn_of_mirrored_classes_too():
    assert len(choose(None, channels=3, classes=("left", "right")).warnings) == 1


@pytest.mark.parametrize(("channels", "words"), [(1, "1 channel:"), (2, "2 channels:")])
def test_photos_without_colours_warn(channels, words):
    (warning,) = choose("photos", channels=channels).warnings
    assert words in warning
    assert all(other in warning for other in PRESETS)
    assert not any(choose(other, channels=channels).warnings for other in PRESETS if other != "photos")
    assert choose("photos", channels=3).warnings == choose("photos", channels=4).warnings == ()


# Preset.of

OWN = Augment(
    scale=(0.14, 1.0),
    ratio=(0.5, 2.0),
    flip=0.4,
    jitter=0.7,
    brightness=0.8,
    contrast=0.9,
    saturation=0.6,
    hue=0.2,
    grayscale=0.3,
    blur=0.5,
    blur_sigma=(0.2, 1.5),
    solarise=0.15,
    solarise_threshold=0.6,
)
"""A method's own augmentation, of which every number differs from the default."""


def changed(name, size, own=OWN):
    before, after = asdict(own), asdict(PRESETS[name].of("augment", own, size))
    return {key: after[key] for key in after if after[key] != before[key]}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [28, 224])
def test_weak_and_strong_are_the_presets(name, size):
    preset = PRESETS[name]
    for published in (WEAK, STRONG, KNEE, NATURAL_WEAK, NATURAL_STRONG):
        assert preset.of("weak", published, size) is preset.weak
        assert preset.of("strong", published, size) is preset.strong
        assert preset.of("view", published, size) is published
    assert preset.weak != preset.strong


def test_photos_are_fixmatchs():
    assert PRESETS["photos"].weak == NATURAL_WEAK
    assert PRESETS["photos"].strong == NATURAL_STRONG


@pytest.mark.parametrize(
    ("name", "large", "small"),
    [
        ("photos", {}, {"scale": (0.2, 1.0)}),
        ("greys", {"flip": 0.0, "scale": (0.3, 1.0), "brightness": 0.2, "solarise": 0.0}, {}),
        ("radiographs", {"flip": 0.0, "scale": (0.4, 1.0), "brightness": 0.2, "solarise": 0.0}, {}),
        ("digits", {"flip": 0.0, "scale": (0.4, 1.0), "solarise": 0.0}, {}),
        ("microscopy", {"scale": (0.3, 1.0), "brightness": 0.2, "solarise": 0.0}, {}),
    ],
)
def test_a_methods_own_strengths_stay_but_for_crops_mirrors_and_blur(name, large, small):
    assert changed(name, SMALL + 1) == large
    assert changed(name, 224) == large
    assert changed(name, SMALL) == changed(name, 8) == {**large, "blur": 0.0, **small}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 96])
def test_swavs_strong_colours_stay(name, size):
    found = PRESETS[name].of("augment", AUGMENT, size)
    strengths = (found.brightness, found.contrast, found.saturation, found.hue, found.grayscale)
    bright = 0.2 if name in ("greys", "radiographs", "microscopy") else 0.8
    assert strengths == (bright, 0.8, 0.8, 0.2, 0.2)
    assert found.blur == (0.5 if size > SMALL else 0.0)
    assert found.scale[0] >= AUGMENT.scale[0]


@pytest.mark.parametrize("name", PRESETS)
def test_small_crops_grow_for_small_pictures_only(name):
    preset, published = PRESETS[name], (0.05, 0.14)
    assert preset.of("small_scale", published, SMALL) == preset.small_scale != published
    assert preset.of("small_scale", published, SMALL + 1) == published
    low, high = preset.small_scale
    assert published[0] < low < high < 1


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 96])
def test_other_options_are_left_as_they_are(name, size):
    for option, value in {
        "temperature": 0.1,
        "small": 6,
        "small_size": 3 / 7,
        "scale": (0.1, 0.2),
        "weak": None,
        "ramp": (0.0, 1.0),
    }.items():
        assert PRESETS[name].of(option, value, size) is value


# what views never do


@pytest.mark.parametrize("strength", ["weak", "strong"])
@pytest.mark.parametrize("name", SIDED)
def test_no_view_of_a_sided_picture_is_mirrored(sided, name, strength):
    image = still(sided, 96)
    views = warped(sided, getattr(PRESETS[name], strength), 200, 96)
    margin = alike(views, image) - alike(views, image.flip(2))
    assert margin.min() > 0


@pytest.mark.parametrize("strength", ["weak", "strong"])
@pytest.mark.parametrize("name", sorted(MIRROR))
def test_half_the_views_of_other_pictures_are(sided, name, strength):
    """The same measure finds mirrors, so it would have found one above."""
    image = still(sided, 96)
    warp = replace(getattr(PRESETS[name], strength), quarter_turns=0)
    views = warped(sided, warp, 200, 96)
    mirrored = (alike(views, image) < alike(views, image.flip(2))).float().mean()
    assert 0.35 < mirrored < 0.65  # 0.5 +- 4 standard deviations


@pytest.mark.parametrize("own", [Augment(), Augment(blur=0.5, solarise=0.2)], ids=["SimCLR", "more"])
@pytest.mark.parametrize("name", PRESETS)
def test_crops_of_a_ramp_rise_to_the_right_unless_mirrored(name, own):
    """Wherever a crop lies, a picture that gets brighter to the right does so in it."""
    ramp = torch.linspace(50, 150, 48).round().to(torch.uint8).expand(1, 48, 48)
    images = ramp.expand(200, -1, -1, -1)
    augment, rng = PRESETS[name].of("augment", own, 32), Rng.of(1)
    views = augment_images(
        images, squares(images), torch.arange(200), rng, size=32, augment=augment, mean=[0.0], std=[1.0]
    )
    rise = views[..., 16:].mean((1, 2, 3)) - views[..., :16].mean((1, 2, 3))
    if name in MIRROR:
        assert 0.3 < (rise < 0).float().mean() < 0.7
    else:
        assert rise.min() > 0


@pytest.mark.parametrize("name", SIDED)
def test_weak_views_change_a_picture_and_keep_what_it_shows(sided, name):
    """Every view changes something: 0.05 to 0.07 of 1 on average, at most a third of what a mirror would."""
    image = still(sided, 96)
    mirror = (image - image.flip(2)).abs().mean()
    assert mirror > 0.4
    weak, strong = (
        (warped(sided, warp, 200, 96) - image).abs().mean((1, 2, 3))
        for warp in (PRESETS[name].weak, PRESETS[name].strong)
    )
    assert weak.min() > 0.005
    assert weak.mean() < 0.08
    assert weak.max() < mirror / 3
    assert weak.mean() < 0.8 * strong.mean()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_weak_views_have_no_noise_no_hole_and_no_edge(name, channels):
    """An image of one value stays one, and keeps its value unless the exposure changes."""
    for value in (0, 51, 255):
        image = torch.full((channels, 40, 40), value, dtype=torch.uint8)
        views = warped(image, PRESETS[name].weak, 100)
        spread = views.amax((1, 2, 3)) - views.amin((1, 2, 3))
        assert spread.max() < 1e-5
        if PRESETS[name].weak.gamma == (1.0, 1.0) or value in (0, 255):
            torch.testing.assert_close(views, torch.full_like(views, value / 255), atol=1e-5, rtol=0)


def test_only_radiographs_change_a_weak_views_exposure():
    image = torch.full((1, 16, 16), 51, dtype=torch.uint8)
    changes = {n for n, p in PRESETS.items() if (warped(image, p.weak, 100) - 0.2).abs().max() > 1e-3}
    assert changes == {"radiographs"}


# quarter turns


def turns_of(views, image):
    """Which of four turns each view is, (B,), counter-clockwise."""
    apart = torch.stack([(views - torch.rot90(image, k, (1, 2))).abs().amax((1, 2, 3)) for k in range(4)])
    assert ((apart < 2e-5).sum(0) == 1).all()
    return apart.argmin(0)


@pytest.fixture(scope="module")
def square(photos):
    return torch.from_numpy(photos["flower"][100:132, 200:232].copy()).permute(2, 0, 1)


def test_views_turn_by_all_four_quarters_alike(square):
    views = warped(square, Warp(rotate=0, zoom=0, shift=0, quarter_turns=1.0), 400)
    counts = torch.bincount(turns_of(views, square / 255), minlength=4)
    assert counts.sum() == 400
    assert (counts - 100).abs().max() < 35  # 4 standard deviations of 8.7


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.8])
def test_quarter_turns_have_the_probability_that_is_asked_for(square, probability):
    views = warped(square, Warp(rotate=0, zoom=0, shift=0, quarter_turns=probability), 400)
    unturned = (turns_of(views, square / 255) == 0).float().mean()
    assert abs(unturned - (1 - 0.75 * probability)) < 0.1  # 4 standard deviations


def test_without_quarter_turns_nothing_turns(square):
    views = warped(square, Warp(rotate=0, zoom=0, shift=0), 20)
    assert (turns_of(views, square / 255) == 0).all()
