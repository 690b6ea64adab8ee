"""RandAugment's operations against torchvision's, one image at a time, and what must not matter."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from tacit.rng import Rng
from tacit.views import randaugment as ra
from tacit.views.randaugment import draw_operations, operations, randaugment
from tacit.views.warp import NATURAL_STRONG, warp_images


@pytest.fixture(scope="module")
def images(photos):
    """8 crops of 32 x 32 pixels, (8, 3, 32, 32) float32 in 0..1, whole 255ths."""
    photo = torch.from_numpy(photos["china"][::2, ::2].copy()).permute(2, 0, 1)
    return torch.stack([photo[:, 60 + 9 * i : 92 + 9 * i, 20 * i : 20 * i + 32] for i in range(8)]) / 255


def one(images, operation, strength=0.5, sign=1.0):
    number = operations(images.shape[1]).index(operation)
    drawn = torch.tensor([number, strength, sign]).expand(len(images), 1, 3)
    return randaugment(images, drawn)


FACTOR = 0.05 + 0.3 * 0.9
REFERENCES = {
    ra._identity: lambda x: x,
    ra._autocontrast: F.autocontrast,
    ra._equalize: lambda x: F.equalize((x * 255).round().to(torch.uint8)) / 255,
    ra._brightness: lambda x: F.adjust_brightness(x, FACTOR),
    ra._contrast: lambda x: F.adjust_contrast(x, FACTOR),
    ra._colour: lambda x: F.adjust_saturation(x, FACTOR),
    ra._sharpness: lambda x: F.adjust_sharpness(x, FACTOR),
    ra._posterize: lambda x: F.posterize((x * 255).round().to(torch.uint8), 5) / 255,
    ra._solarize: lambda x: F.solarize(x, 0.3),
}


@pytest.mark.parametrize("operation", REFERENCES, ids=lambda o: o.__name__)
def test_colour_operations_equal_torchvisions(images, operation):
    found = one(images, operation, strength=0.3)
    for image, changed in zip(images, found, strict=True):
        torch.testing.assert_close(changed, REFERENCES[operation](image[None])[0], atol=2e-3, rtol=0)


def test_a_whole_pixel_translation_moves_pixels_to_the_right_and_down(images):
    right = one(images, ra._translate_x, strength=4 / 32 / 0.3)
    down = one(images, ra._translate_y, strength=4 / 32 / 0.3)
    torch.testing.assert_close(right[..., 4:], images[..., :-4], atol=1e-4, rtol=0)
    torch.testing.assert_close(down[..., 4:, :], images[..., :-4, :], atol=1e-4, rtol=0)


@pytest.mark.parametrize("operation", [ra._rotate, ra._shear_x, ra._shear_y])
def test_turns_and_shears_keep_the_middle_and_undo_each_other(images, operation):
    smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    there = one(smooth, operation, strength=0.4, sign=1.0)
    back = one(there, operation, strength=0.4, sign=-1.0)
    middle = (..., slice(12, 20), slice(12, 20))
    assert (there - smooth).abs().max() > 0.02
    assert (back[middle] - smooth[middle]).abs().mean() < 0.02


def test_every_operation_is_drawn_alike_with_uniform_strengths():
    drawn = draw_operations(torch.arange(20000), Rng.of(0), 2, 3)
    shares = torch.bincount(drawn[..., 0].flatten().long(), minlength=14) / drawn[..., 0].numel()
    assert len(shares) == len(operations(3)) == 14
    torch.testing.assert_close(shares, torch.full((14,), 1 / 14), atol=0.006, rtol=0)
    strength = drawn[..., 1].flatten()
    assert abs(strength.mean() - 0.5) < 0.01
    assert abs(strength.var() - 1 / 12) < 0.005
    assert abs(drawn[..., 2].mean()) < 0.02


def test_grey_images_have_no_colour_operation():
    assert ra._colour not in operations(1)
    assert len(operations(1)) == 13


def test_an_images_choices_do_not_depend_on_its_batch(photos):
    photo = torch.from_numpy(photos["china"][:64, :128].copy()).permute(2, 0, 1)
    images = torch.stack([photo[:, :32, 4 * i : 4 * i + 32] for i in range(12)])
    size, index = torch.full((12, 2), 32.0), torch.arange(12)

    def view(rows):
        return warp_images(images[rows], size[rows], index[rows], Rng.of(3), size=32, warp=NATURAL_STRONG,
                           mean=(0,) * 3, std=(1,) * 3)  # fmt: skip

    whole = view(slice(None))
    for rows in (slice(0, 5), slice(5, 12), slice(7, 8)):
        torch.testing.assert_close(view(rows), whole[rows], atol=1e-5, rtol=0)
    assert (whole - images / 255).abs().mean((1, 2, 3)).gt(0.01).sum() > 8


def test_values_stay_within_bounds(images):
    drawn = draw_operations(torch.arange(4096), Rng.of(1), 3, 3)
    for part in drawn.split(8):
        found = randaugment(images, part)
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.max() <= 1
