"""What is unlabelled carries no target of any kind, whatever the source is."""

import numpy as np
import torch

from balls import ball_folder
from tacit.data.open import open_source
from tacit.data.source import Sample, Source, Spec
from tacit.rng import Rng
from tacit.training.loader import StepData, Stream


class Numbers(Source):
    """Samples that bring a target of their own, read by the plain `batch`."""

    def __init__(self):
        super().__init__(Spec("image", (1, 2, 2), target="value"), list("abcd"), np.zeros(4, np.int64))

    def __getitem__(self, i):
        return Sample(torch.zeros(1, 2, 2), i, int(self.labels[i]), self.names[i], torch.tensor(float(i)))


def step(source, cut=None):
    data = StepData(source, Rng.of(0), cut, Stream(np.array([0, 1]), 2))
    return data[(0, torch.tensor([2, 3]), torch.tensor([0, 1]))]


def test_the_unlabelled_part_of_a_step_has_no_target():
    batch = step(Numbers())
    assert batch.unlabelled.target is None
    assert batch.labelled.target.tolist() == [0.0, 1.0]
    cut = step(Numbers(), cut=lambda sample, rng: sample)
    assert cut.unlabelled.target is None
    assert cut.labelled.target.tolist() == [0.0, 1.0]


def test_a_subset_hides_what_its_parent_knows(tmp_path):
    parts = open_source(ball_folder(tmp_path, count=4, masks=4), patch=(8, 8, 8)).subset(np.arange(4))
    hidden = parts.hiding(np.array([0]))
    assert hidden.labels.tolist() == [0, -1, -1, -1]
    assert [hidden[i].label for i in range(4)] == [0, -1, -1, -1]
    numbers = Numbers().subset(np.array([3, 1])).hiding(np.array([1]))
    assert [numbers[i].target for i in range(2)] == [None, torch.tensor(1.0)]
    plain = open_source(Numbers().subset(np.arange(4)), labels="none")
    assert all(plain[i].label == -1 and plain[i].target is None for i in range(4))
