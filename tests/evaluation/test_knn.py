import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from tacit.evaluation import knn
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


def votes_one_by_one(bank, labels, queries, classes, k, temperature):
    similarity = F.normalize(queries.double(), dim=1) @ F.normalize(bank.double(), dim=1).T
    votes = torch.zeros(len(queries), classes, dtype=torch.float64)
    for row, vote in zip(similarity, votes, strict=True):
        for i in row.argsort(descending=True)[:k].tolist():
            vote[labels[i]] += math.exp(row[i] / temperature)
    return votes / votes.sum(1, keepdim=True)


@pytest.mark.parametrize("size", [1, 7, 8, 63, 97, 128, 130, 401])
@pytest.mark.parametrize("k", [1, 5, 9])
def test_blocks_and_groups_do_not_show(monkeypatch, size, k):
    monkeypatch.setattr(knn, "_QUERIES", 6)
    monkeypatch.setattr(knn, "_BANK", 128)
    monkeypatch.setattr(knn, "_GROUP", 4)
    draw = torch.Generator().manual_seed(size)
    bank, queries = torch.randn(size, 6, generator=draw), torch.randn(20, 6, generator=draw)
    bank[size // 2 :] += 0.5 * queries[0]  # most of the neighbours in neighbouring groups
    labels = torch.randint(0, 5, (size,), generator=draw)
    votes = knn_predict(bank, labels, queries, classes=5, k=k, temperature=0.3)
    exact = votes_one_by_one(bank, labels, queries, 5, k, 0.3)
    torch.testing.assert_close(votes.double(), exact, atol=1e-5, rtol=0)


def test_neighbours_in_the_last_columns_count():
    draw = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(64 * 50 + 3, 16, generator=draw), dim=1)
    labels = torch.zeros(len(bank), dtype=torch.long)
    labels[-3:] = 1
    votes = knn_predict(bank, labels, bank[-3:], classes=2, k=1)
    assert votes.argmax(1).tolist() == [1, 1, 1]


def test_no_queries_have_no_votes():
    assert knn_predict(torch.eye(3), torch.arange(3), torch.zeros(0, 3), classes=3).shape == (0, 3)
