import torch

from tacit.batch import Batch, Samples, Step


def samples(count=2):
    return Samples(
        torch.zeros(count, 1, 3, 3, dtype=torch.uint8),
        torch.arange(count),
        target=torch.ones(count),
        length=torch.full((count,), 3),
        domain=torch.zeros(count, dtype=torch.int64),
        extra={"true_size": torch.ones(count, 2)},
    )


def test_to_moves_every_tensor_of_every_part():
    batch = Batch(samples(), labelled=samples(3), beside=samples(4))
    moved = batch.to("meta")
    for part in (moved.unlabelled, moved.labelled, moved.beside):
        tensors = (part.data, part.index, part.target, part.length, part.domain, part.extra["true_size"])
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.unlabelled.data.device.type == "cpu"
    assert len(batch) == 2
    assert len(moved.beside) == 4


def test_a_part_that_is_not_there_stays_away_and_an_empty_one_stays():
    moved = Batch(samples(), labelled=samples(0)).to("cpu")
    assert moved.beside is None
    assert len(moved.labelled) == 0


def test_samples_do_not_share_their_extra():
    first = Samples(torch.zeros(1), torch.arange(1))
    second = Samples(torch.zeros(1), torch.arange(1))
    assert first.extra is not second.extra


def test_a_step_tells_its_progress():
    step = Step(25, 100, 1, 4)
    assert step.index / step.total == 0.25
