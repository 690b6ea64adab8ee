"""Ramps: their ends, their middles, and no ramp."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UsageError
from tacit.losses.ramps import gaussian_ramp, linear_ramp


@pytest.mark.parametrize(
    ("progress", "share", "linear", "gaussian"),
    [
        (0.0, 0.4, 0.0, 0.0067379),
        (0.1, 0.4, 0.25, math.exp(-5 * 0.75**2)),
        (0.2, 0.4, 0.5, 0.2865048),
        (0.4, 0.4, 1.0, 1.0),
        (0.9, 0.4, 1.0, 1.0),
        (1.0, 1.0, 1.0, 1.0),
        (0.5, 1.0, 0.5, 0.2865048),
        (0.0, 0.0, 1.0, 1.0),
        (0.7, 0.0, 1.0, 1.0),
    ],
)
def test_values(progress, share, linear, gaussian):
    assert linear_ramp(progress, share) == pytest.approx(linear, abs=1e-12)
    assert gaussian_ramp(progress, share) == pytest.approx(gaussian, abs=5e-8)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_ramps_rise_and_stay_between_0_and_1(a, b, share):
    early, late = sorted((a, b))
    for ramp in (linear_ramp, gaussian_ramp):
        assert 0 <= ramp(early, share) <= ramp(late, share) <= 1
        assert ramp(share, share) == ramp(1.0, share) == 1


@pytest.mark.parametrize("ramp", [linear_ramp, gaussian_ramp])
@pytest.mark.parametrize("bad", [(-0.1, 0.5), (0.5, -0.1), (math.nan, 0.5), (0.5, math.nan)])
def test_wrong_use(ramp, bad):
    with pytest.raises(UsageError, match="must be at least 0"):
        ramp(*bad)
