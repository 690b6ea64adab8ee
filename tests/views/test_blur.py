"""Blur against torchvision's, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.blur import gaussian_blur, usual_kernel_size


def noise(*shape):
    return torch.rand(*shape, generator=Rng.of(0)("noise").torch())


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((32, 32), 3),
        ((224, 224), 23),
        ((40, 100), 9),
        ((100, 40), 9),
        ((48, 20), 39),
        ((20, 48), 39),
        ((37, 41), 73),
    ],
)
def test_equals_torchvisions_image_by_image(shape, kernel):
    images, sigma = noise(4, 3, *shape), torch.tensor([0.1, 0.7, 2.0, 9.0])
    blurred = gaussian_blur(images, sigma, kernel)
    for image, width, result in zip(images, sigma.tolist(), blurred, strict=True):
        exact = F.gaussian_blur(image, [kernel, kernel], [width, width])
        torch.testing.assert_close(result, exact, atol=1e-5, rtol=0)


def test_kernel_of_one_changes_nothing_and_a_wide_one_flattens():
    images = noise(2, 1, 33, 33)
    torch.testing.assert_close(gaussian_blur(images, torch.ones(2), 1), images)
    assert gaussian_blur(images, torch.full((2,), 50.0), 65).std() < 0.02 < images.std()


@pytest.mark.parametrize("kernel", [4, 0, -3, 17, 16])
def test_impossible_kernels_are_named(kernel):
    with pytest.raises(UsageError, match="kernel_size must be odd and below 16"):
        gaussian_blur(noise(1, 1, 8, 30), torch.ones(1), kernel)


def test_usual_kernel_is_the_odd_number_nearest_to_a_tenth_and_always_fits():
    assert [usual_kernel_size(size) for size in (224, 96, 32, 64, 160, 20)] == [23, 9, 3, 7, 17, 3]
    for size in range(1, 400):
        kernel = usual_kernel_size(size)
        assert kernel % 2 == 1
        assert abs(kernel - size / 10) <= 1 or size < 20
        assert gaussian_blur(noise(1, 1, size, 1), torch.ones(1), 1).shape == (1, 1, size, 1)
        assert kernel < 2 * size
