"""Whether a source's pictures show colours."""

import numpy as np
import pytest
import torch
from PIL import Image

from tacit.data.image.statistics import colourful
from tacit.data.image.store import Images
from tacit.data.open import open_source
from tacit.data.source import Source


def source(pixels: np.ndarray) -> Source:
    return Images(pixels, np.full((len(pixels), 2), pixels.shape[-1]), [str(i) for i in range(len(pixels))])


def greys(count: int, side: int = 16) -> np.ndarray:
    """Images of three equal channels."""
    one = np.random.default_rng(0).integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    return one.repeat(3, 1)


def with_colour(count: int, coloured: list[int]) -> np.ndarray:
    """Grey images, those at these positions with less red than green and blue."""
    pixels = greys(count) // 2 + 60
    pixels[coloured, 0] -= 50
    return pixels


def test_grey_pictures_with_three_equal_channels_have_no_colours():
    assert colourful(source(greys(30))) is False


def test_pictures_whose_channels_differ_have():
    assert colourful(source(with_colour(30, list(range(30))))) is True


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_channel_counts(channel):
    pixels = greys(30) // 2
    pixels[:, channel] += 40
    assert colourful(source(pixels)) is True


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_only_three_or_four_channels_are_colours(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (20, channels, 8, 8), dtype=np.uint8)
    assert colourful(source(pixels)) is False


def test_a_fourth_channel_is_no_colour():
    """An alpha channel differs from the others in every picture."""
    alpha = np.full((30, 1, 16, 16), 255, np.uint8)
    assert colourful(source(np.concatenate([greys(30) // 2, alpha], 1))) is False
    assert colourful(source(np.concatenate([with_colour(30, [3, 9]), alpha], 1))) is True


def test_a_few_levels_between_channels_are_no_colour():
    noise = np.random.default_rng(2).integers(0, 9, (30, 3, 16, 16), dtype=np.uint8)
    assert colourful(source(greys(30) // 2 + noise)) is False


@pytest.mark.parametrize(("levels", "colour"), [(8, False), (9, True)])
def test_more_than_eight_levels_are(levels, colour):
    pixels = greys(30) // 2
    pixels[:, 1] += levels
    assert colourful(source(pixels)) is colour


def test_a_bright_channel_does_not_wrap_around():
    """A difference of 200 is one of 200, not of -56, whichever channel is larger."""
    for bright in range(3):
        pixels = np.zeros((5, 3, 16, 16), np.uint8)
        pixels[:, bright] = 200
        assert colourful(source(pixels)) is True


@pytest.mark.parametrize(("coloured", "colour"), [(2, False), (3, True)])
def test_a_hundredth_of_the_pixels_is_needed(coloured, colour):
    """2 and 3 of 256 are 0.8 % and 1.2 %."""
    pixels = greys(30)
    pixels[:, :, 0, :coloured] = np.array([200, 20, 20], np.uint8)[:, None]
    assert colourful(source(pixels)) is colour


@pytest.mark.parametrize(
    ("count", "coloured", "colour"), [(30, [7], False), (20, [7], True), (30, [7, 8], True), (1, [0], True)]
)
def test_one_picture_in_twenty_is_enough(count, coloured, colour):
    assert colourful(source(with_colour(count, coloured))) is colour


def test_of_many_pictures_some_from_everywhere_are_looked_at():
    """The last tenth in colour is seen, as is the first; each would be all or nothing by the first 64."""
    assert colourful(source(with_colour(2000, list(range(1800, 2000))))) is True
    assert colourful(source(with_colour(2000, list(range(200))))) is True
    assert colourful(source(with_colour(2000, list(range(20))))) is False


class Counting(Images):
    asked = 0

    def batch(self, index):
        self.asked += len(index)
        return super().batch(index)


def test_no_more_than_64_are_read():
    pixels = greys(1000, 4)
    counting = Counting(pixels, np.full((1000, 2), 4), [str(i) for i in range(1000)])
    colourful(counting)
    assert counting.asked == 64


def test_a_grey_photograph_saved_as_an_rgb_jpeg_has_no_colours(photos, tmp_path):
    """The real files: one folder as it was taken, one turned grey, both as RGB in JPEG of low quality."""
    for name in ("colours", "grey"):
        (tmp_path / name).mkdir()
        for i in range(6):
            crop = Image.fromarray(photos["china"][40 * i : 40 * i + 64, 80 * i : 80 * i + 64])
            crop = crop.convert("L").convert("RGB") if name == "grey" else crop
            crop.save(tmp_path / name / f"{i}.jpg", quality=60)
    found = {
        name: open_source(str(tmp_path / name), size=64, channels=3, progress=False)
        for name in ("colours", "grey")
    }
    assert {s.spec.shape for s in found.values()} == {(3, 64, 64)}
    assert colourful(found["colours"]) is True
    assert colourful(found["grey"]) is False


def test_reading_moves_no_random_state():
    state = torch.get_rng_state()
    colourful(source(greys(100)))
    assert torch.equal(state, torch.get_rng_state())
