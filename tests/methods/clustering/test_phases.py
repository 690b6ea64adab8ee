import pytest

from tacit.batch import Step
from tacit.errors import UsageError
from tacit.methods.clustering.joint_image_volume.phases import Phases

PER_EPOCH = 4


def steps(epochs):
    return [Step(i, epochs * PER_EPOCH, i // PER_EPOCH, epochs) for i in range(epochs * PER_EPOCH)]


def table(phases, epochs):
    return [phases.phase(step) for step in steps(epochs)[::PER_EPOCH]]


@pytest.mark.parametrize(
    ("shares", "epochs", "expected"),
    [
        ((105, 100, 100), 305, [0] * 105 + [1] * 100 + [2] * 100),
        ((105, 100, 100), 3, [0, 1, 2]),
        ((1, 1, 1), 4, [0, 1, 1, 2]),
        ((98, 1, 1), 10, [0] * 8 + [1, 2]),
        ((1, 1, 98), 10, [0, 1] + [2] * 8),
        ((1, 0, 1), 4, [0, 0, 2, 2]),
        ((1, 0, 0), 2, [0, 0]),
        ((0, 0, 1), 1, [2]),
    ],
)
def test_sequential_phases_have_their_shares_and_an_epoch_at_least(shares, epochs, expected):
    assert table(Phases("sequential", shares, (1, 1, 1)), epochs) == expected


def test_alternating_phases_come_in_rounds():
    assert table(Phases("alternate", (1, 1, 1), (2, 1, 1)), 7) == [0, 0, 1, 2, 0, 0, 1]


def test_a_phase_counts_its_own_steps():
    phases = Phases("alternate", (1, 1, 1), (2, 1, 1))
    for phase in range(3):
        own = [phases.within(step) for step in steps(7) if phases.phase(step) == phase]
        assert [step.index for step in own] == list(range(len(own)))
        assert {step.total for step in own} == {len(own)}
        assert [step.epoch for step in own] == [i // PER_EPOCH for i in range(len(own))]
        assert {step.epochs for step in own} == {len(own) // PER_EPOCH}


def test_a_phase_begins_where_another_was_before():
    phases = Phases("alternate", (1, 1, 1), (2, 1, 1))
    assert [phases.begins(step) for step in steps(7)[::PER_EPOCH]] == [1, 0, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("order", ["sequential", "alternate"])
def test_too_few_epochs_say_how_many_are_enough(order):
    with pytest.raises(UsageError, match="--epochs 3"):
        table(Phases(order, (1, 1, 1), (1, 1, 1)), 2)


@pytest.mark.parametrize(
    "arguments",
    [("sequential", (0, 0, 0), (1, 1, 1)), ("alternate", (1, 1, 1), (1, -1, 1)), ("both", (1,), (1,))],
)
def test_nonsense_is_one_line(arguments):
    with pytest.raises(UsageError):
        Phases(*arguments)
