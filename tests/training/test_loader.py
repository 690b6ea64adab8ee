import numpy as np
import pytest
import torch

from tacit.data.source import Sample, Source, Spec
from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.training.loader import Beside, Plan, StepData, StepSampler, Stream, step_loader


class Numbers(Source):
    """Sample i is the number i."""

    def __init__(self, count):
        super().__init__(Spec("image", (1, 1, 1)), [str(i) for i in range(count)])

    def __getitem__(self, i):
        return Sample(torch.full((1, 1, 1), float(i)), i)


def drawn(plan, **kwargs):
    return [(step, index.tolist()) for step, index in StepSampler(plan, Rng.of(0), **kwargs)]


def test_an_epoch_shows_each_sample_once_in_an_order_of_its_own():
    plan = Plan(samples=23, batch_size=4, epochs=3)
    steps = drawn(plan)
    assert [step for step, _ in steps] == list(range(15))
    epochs = [[i for _, index in steps[e * 5 : e * 5 + 5] for i in index] for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert epochs[0] != epochs[1]


def test_beginning_in_the_middle_is_never_having_stopped():
    plan = Plan(samples=23, batch_size=4, epochs=3)
    assert drawn(plan, start=7) == drawn(plan)[7:]
    assert len(StepSampler(plan, Rng.of(0), start=7)) == 8


def test_processes_and_parts_share_one_global_batch():
    whole = drawn(Plan(samples=40, batch_size=12, epochs=2))
    ranks = [drawn(Plan(40, 12, 2, accumulate=2, processes=3), rank=rank) for rank in range(3)]
    for step, index in whole:
        parts = [part for rank in ranks for s, part in rank if s == step]
        assert all(len(part) == 2 for part in parts)
        assert sorted(i for part in parts for i in part) == sorted(index)
    # the first accumulated part of all ranks is the first half of the batch
    first = [i for rank in ranks for i in rank[0][1]]
    assert first == whole[0][1][:6]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_delivers_the_planned_samples_and_cuts_in_the_workers(workers):
    plan, rng = Plan(samples=10, batch_size=4, epochs=1), Rng.of(0)
    loader = step_loader(
        StepData(Numbers(10), rng, None), StepSampler(plan, rng), workers=workers, pin_memory=False
    )
    for batch, (_, index) in zip(loader, drawn(plan), strict=True):
        assert batch.unlabelled.index.tolist() == index
        assert batch.unlabelled.data.flatten().tolist() == index


def add_noise(sample, rng: np.random.Generator):
    return Sample(sample.data + rng.random(), sample.index)


def test_cut_is_a_function_of_the_sample_and_the_step():
    data, index = StepData(Numbers(10), Rng.of(0), add_noise), torch.tensor([3, 5])
    first, again = data[(8, index)], data[(8, index.flip(0))]
    assert torch.equal(first.unlabelled.data.flip(0), again.unlabelled.data)
    assert not torch.equal(first.unlabelled.data, data[(9, index)].unlabelled.data)
    fraction = first.unlabelled.data.flatten() - torch.tensor([3.0, 5.0])
    assert ((fraction > 0) & (fraction < 1)).all()


def test_fewer_samples_than_a_batch():
    with pytest.raises(UsageError, match=r"12 samples are fewer than one batch of 256: pass --batch-size 12"):
        Plan(samples=12, batch_size=256, epochs=1)


@pytest.mark.parametrize("split", [{"accumulate": 3}, {"processes": 5}, {"accumulate": 8, "processes": 2}])
def test_a_batch_that_cannot_be_split(split):
    with pytest.raises(UsageError, match="cannot be split"):
        Plan(samples=100, batch_size=16, epochs=1, **split)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_stream_shows_each_of_few_samples_once_a_pass_and_nothing_else(count):
    stream = Stream(np.array([3, 7, 8, 12, 20, 21]), count)
    drawn_by_step = [stream.draws(step * count, count, Rng.of(0)) for step in range(12 // count)]
    positions = [i for draws in drawn_by_step for i in stream.at(draws).tolist()]
    assert sorted(positions[:6]) == sorted(positions[6:12]) == [3, 7, 8, 12, 20, 21]
    assert positions[:6] != positions[6:12]
    numbers = torch.cat(drawn_by_step).tolist()
    assert len(set(numbers)) == 12  # a sample's second draw is another number


def test_labelled_samples_and_images_stand_beside_the_unlabelled_ones():
    plan, rng = Plan(samples=10, batch_size=4, epochs=2), Rng.of(0)
    source = Numbers(10)
    source.labels[[2, 5]] = [0, 1]
    data = StepData(
        source, rng, None, Stream(np.array([2, 5]), 2), Beside(Numbers(6), Stream(np.arange(6), 3, "images"))
    )
    seen = []
    for at in StepSampler(plan, rng, streams=data.streams):
        batch = data[at]
        assert len(batch) == 4
        assert sorted(batch.labelled.data.flatten().tolist()) == [2.0, 5.0]
        assert batch.labelled.target.tolist() == [0 if x == 2 else 1 for x in batch.labelled.data.flatten()]
        assert batch.unlabelled.target is None
        assert batch.beside.data.shape == (3, 1, 1, 1)
        assert (batch.beside.index % 6).tolist() == batch.beside.data.flatten().tolist()
        seen += batch.beside.data.flatten().tolist()
    assert sorted(seen) == sorted([float(i) for i in range(6)] * 2)
