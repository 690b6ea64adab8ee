import torch

from tacit.batch import Batch, Step


def test_to_moves_every_tensor_and_keeps_the_rest():
    batch = Batch(
        torch.zeros(2, 1, 3, 3, dtype=torch.uint8),
        torch.arange(2),
        target=torch.ones(1),
        source="speech",
        extra={"true_size": torch.ones(2, 2)},
    )
    moved = batch.to("meta")
    assert moved.unlabelled.device.type == moved.index.device.type == moved.target.device.type == "meta"
    assert moved.extra["true_size"].device.type == "meta"
    assert moved.labelled is None
    assert moved.source == "speech"
    assert batch.unlabelled.device.type == "cpu"
    assert len(batch) == 2


def test_batches_do_not_share_their_extra():
    first = Batch(torch.zeros(1), torch.arange(1))
    second = Batch(torch.zeros(1), torch.arange(1))
    assert first.extra is not second.extra


def test_a_step_tells_its_progress():
    step = Step(25, 100, 1, 4)
    assert step.index / step.total == 0.25
