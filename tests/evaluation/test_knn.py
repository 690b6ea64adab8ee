import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tacit.evaluation.knn import knn_predict


def test_votes_by_hand():
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    query = torch.tensor([[2.0, 0.0]])  # similarities 1, 0.6, 0, -1
    votes = knn_predict(bank, labels, query, classes=3, k=3, temperature=0.5)
    weights = [math.exp(s / 0.5) for s in (1, 0.6, 0)]
    expected = [weights[0] / sum(weights), (weights[1] + weights[2]) / sum(weights), 0]
    assert votes[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_small_temperature_is_the_nearest_neighbour_and_large_is_the_majority():
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2]])
    labels, query = torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, labels, query, classes=2, k=3, temperature=1e-4).argmax() == 0
    assert knn_predict(bank, labels, query, classes=2, k=3, temperature=1e4).argmax() == 1


def test_agrees_with_scikit_learn():
    draw = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(300, 10, generator=draw), torch.randn(1500, 10, generator=draw)
    labels = torch.randint(0, 5, (300,), generator=draw)
    ours = knn_predict(bank, labels, queries, classes=5, k=15, temperature=0.2).numpy()

    def weights(distance):  # scikit-learn's cosine distance is 1 - similarity
        return np.exp((1 - distance) / 0.2)

    peer = KNeighborsClassifier(15, metric="cosine", algorithm="brute", weights=weights).fit(bank, labels)
    assert np.allclose(ours, peer.predict_proba(queries), atol=1e-4)


def test_fewer_samples_than_neighbours():
    votes = knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), classes=2, k=20)
    assert votes.argmax(1).tolist() == [0, 1]
    assert votes.sum(1).tolist() == pytest.approx([1, 1])
