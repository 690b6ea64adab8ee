import pytest
import torch

from tacit.errors import UsageError
from tacit.losses.masked_slices import masked_slice_loss


def mask(hidden, slices, rows=2):
    out = torch.zeros(rows, slices, dtype=torch.bool)
    out[:, :hidden] = True
    return out


def test_it_is_the_mean_square_of_both_views_over_the_number_hidden():
    target = torch.zeros(2, 60, 4)
    guess = torch.full_like(target, 0.3)
    loss = masked_slice_loss([guess, guess], [target, target], mask(6, 60))
    assert loss.item() == pytest.approx((0.09 + 0.09) / 6)
    assert masked_slice_loss([guess], [target], mask(3, 60)).item() == pytest.approx(0.03)


def test_visible_slices_count_unless_they_are_left_out():
    target = torch.zeros(2, 8, 4)
    guess = target.clone()
    guess[:, 5] = 2.0  # visible
    assert masked_slice_loss([guess], [target], mask(2, 8)).item() == pytest.approx(4 / 8 / 2)
    assert masked_slice_loss([guess], [target], mask(2, 8), masked_only=True).item() == 0
    guess[:, 0] = 1.0  # hidden
    only = masked_slice_loss([guess], [target], mask(2, 8), masked_only=True)
    assert only.item() == pytest.approx(1 / 2 / 2)


def test_nothing_hidden_is_no_division_by_zero():
    target = torch.zeros(2, 8, 4)
    guess = torch.ones_like(target)
    assert masked_slice_loss([guess], [target], mask(0, 8)).item() == 1
    assert masked_slice_loss([guess], [target], mask(0, 8), masked_only=True).item() == 0


def test_targets_get_no_gradient():
    target = torch.zeros(2, 8, 4, dtype=torch.float64, requires_grad=True)
    guess = torch.ones(2, 8, 4, dtype=torch.float64, requires_grad=True)
    masked_slice_loss([guess], [target], mask(2, 8)).backward()
    assert target.grad is None
    assert torch.allclose(guess.grad, torch.full_like(guess, 2 / (2 * 8 * 4) / 2))


def test_shapes_that_do_not_fit_are_one_line():
    x = torch.zeros(2, 8, 4)
    for guesses, targets, hidden in ([], [], mask(1, 8)), ([x], [x, x], mask(1, 8)), ([x], [x], mask(1, 7)):
        with pytest.raises(UsageError):
            masked_slice_loss(guesses, targets, hidden)
