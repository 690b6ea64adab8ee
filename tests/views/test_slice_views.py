import pytest
import torch

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.slices import draw_mask, draw_slices, slice_images


@pytest.mark.parametrize(("slices", "hidden"), [(64, 7), (70, 7), (28, 3), (10, 1), (1, 1)])
def test_a_tenth_of_the_slices_is_hidden_rounded_up(slices, hidden):
    mask = draw_mask(torch.arange(50), Rng.of(0), 0.1, slices)
    assert mask.shape == (50, slices)
    assert (mask.sum(1) == hidden).all()


def test_no_ratio_hides_nothing():
    assert not draw_mask(torch.arange(3), Rng.of(0), 0.0, 9).any()


def test_all_slices_are_as_likely_and_a_choice_is_the_samples():
    index = torch.arange(4000)
    which = draw_slices(index, Rng.of(0), 3, 10)
    assert (which.diff(dim=1) > 0).all()
    assert (torch.bincount(which.flatten(), minlength=10) - 1200).abs().max() < 150
    assert torch.equal(draw_slices(index[7:9], Rng.of(0), 3, 10), which[7:9])
    with pytest.raises(UsageError, match="choose 1 to 10"):
        draw_slices(index, Rng.of(0), 11, 10)


def test_slices_lie_along_the_last_axis_with_rows_along_the_first():
    volumes = torch.rand(2, 3, 6, 6, 5)
    images, size = slice_images(volumes, torch.tensor([[0, 4], [2, 3]]))
    assert torch.equal(images[1], volumes[0, ..., 4])
    assert torch.equal(images[2], volumes[1, ..., 2])
    assert size.tolist() == [[6, 6]] * 4


def test_slices_that_are_no_squares_become_some_and_keep_their_true_size():
    volumes = torch.rand(2, 1, 4, 8, 5)
    images, size = slice_images(volumes, torch.tensor([[1], [2]]))
    assert images.shape == (2, 1, 8, 8)
    assert size.tolist() == [[4, 8]] * 2
    # upsampled rows come in pairs around the true ones
    middle = images[0, 0, 1:7].unflatten(0, (3, 2)).mean(1)
    expected = (volumes[0, 0, :3, :, 1] + volumes[0, 0, 1:, :, 1]) / 2
    assert torch.allclose(middle, expected, atol=1e-5)
