"""Sinkhorn's assignments, the losses that predict them, and spherical k-means; numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.clustering import (
    cluster_cross_entropy,
    normalise_rows,
    sinkhorn,
    spherical_kmeans,
    swapped_prediction,
)
from tacit.rng import Rng

MANY = 500


def rows(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape, name="x", scale=1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=Rng.of(0)(name).torch(), dtype=torch.float64)


def close(found, expected, atol=5e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def naive(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The equations as they are written: a matrix of mass 1, columns to 1/K, rows to 1/B."""
    q = (scores / epsilon).exp()
    q = q / q.sum()
    samples, prototypes = scores.shape
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True) / prototypes
        q = q / q.sum(1, keepdim=True) / samples
    return q * samples


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_two_samples_that_differ(iterations):
    q = sinkhorn(rows([0.1, 0], [0, 0.1]), iterations=iterations)
    close(q, rows([0.8808, 0.1192], [0.1192, 0.8808]))


@pytest.mark.parametrize("iterations", [1, 3])
def test_equal_samples_are_spread_over_all_prototypes(iterations):
    close(sinkhorn(rows([0.1, 0], [0.1, 0]), iterations=iterations), torch.full((2, 2), 0.5).double(), 1e-12)


def test_three_samples_and_their_limit():
    scores = rows([0.1, 0], [0.1, 0], [0, 0.1])
    q = sinkhorn(scores)
    close(q, rows([0.7460, 0.2540], [0.7460, 0.2540], [0.0510, 0.9490]))
    close(q.sum(0), rows(1.543, 1.457), 5e-4)
    limit = sinkhorn(scores, iterations=MANY)
    close(limit, rows([0.7268, 0.2732], [0.7268, 0.2732], [0.0465, 0.9535]))
    close(limit.sum(0), rows(1.5, 1.5), 1e-9)


def test_three_samples_on_a_line():
    scores = rows([0.1, 0], [0.05, 0], [0, 0])
    close(sinkhorn(scores)[:, 0], rows(0.7298, 0.4984, 0.2677))
    close(sinkhorn(scores, iterations=MANY)[:, 0], rows(0.7311, 0.5, 0.2689))


@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_logarithms_give_what_the_equations_give(iterations):
    scores = noise(9, 5, scale=0.3)
    q = sinkhorn(scores, epsilon=0.07, iterations=iterations)
    close(q, naive(scores, 0.07, iterations), 1e-13)
    close(q.sum(1), torch.ones(9).double(), 1e-13)
    assert (q.sum(0) - 9 / 5).abs().max() > 1e-4  # columns only nearly


def test_nothing_overflows_where_the_equations_do():
    scores = noise(9, 5)
    assert not torch.isfinite(naive(scores, 1e-3, 3)).all()
    q = sinkhorn(scores.float(), epsilon=1e-3)
    assert torch.isfinite(q).all()
    close(q.sum(1), torch.ones(9), 1e-5)
    assert sinkhorn(scores.half()).dtype == torch.float32


def test_what_assignments_do_not_depend_on():
    scores = noise(8, 4, scale=0.2)
    q = sinkhorn(scores, iterations=1)
    close(sinkhorn(scores + 3, iterations=1), q, 1e-12)
    close(sinkhorn(scores + noise(1, 4, name="column"), iterations=1), q, 1e-12)
    moved = scores + 0.05 * noise(8, 1, name="row")
    assert (sinkhorn(moved) - sinkhorn(scores)).abs().max() > 1e-4
    close(sinkhorn(moved, iterations=MANY), sinkhorn(scores, iterations=MANY), 1e-9)


def test_assignments_follow_the_order_of_samples_and_prototypes():
    scores = noise(8, 4, scale=0.2)
    samples, prototypes = Rng.of(0)("s").permutation(8), Rng.of(0)("p").permutation(4)
    close(sinkhorn(scores[samples][:, prototypes]), sinkhorn(scores)[samples][:, prototypes], 1e-12)


def test_further_rows_take_part_and_are_cut_off():
    scores, queued = noise(4, 3, scale=0.2), noise(20, 3, name="queue", scale=0.2)
    q = sinkhorn(torch.cat([queued, scores]))
    assert (q[-4:] - sinkhorn(scores)).abs().max() > 1e-2
    assert not q.requires_grad
    assert not sinkhorn(scores.requires_grad_()).requires_grad


def test_swapped_prediction_by_hand():
    target, scores = rows([0.8808, 0.1192]), [rows([0.0, 0.0]), rows([0.05, 0.0])]
    assert swapped_prediction(scores, {0: target}).item() == pytest.approx(0.5337, abs=5e-5)
    for k, expected in ((3000, 8.0064), (4, 1.3863)):
        flat = [torch.zeros(2, k), torch.ones(2, k)]
        q = sinkhorn(noise(2, k))
        assert swapped_prediction(flat, {0: q, 1: q}).item() == pytest.approx(expected, abs=5e-5)
    assert math.log(3000) == pytest.approx(8.0064, abs=5e-5)


def test_swapped_prediction_is_the_mean_over_pairs_of_views():
    scores = [noise(5, 4, name=f"view {v}", scale=0.3) for v in range(4)]
    targets = {a: sinkhorn(scores[a]) for a in (0, 1)}
    total = 0.0
    for a in (0, 1):
        others = [v for v in range(4) if v != a]
        terms = [F.cross_entropy(scores[v] / 0.2, targets[a]).item() for v in others]
        total += sum(terms) / 3 / 2
    assert swapped_prediction(scores, targets, 0.2).item() == pytest.approx(total, abs=1e-12)


def test_two_views_can_be_swapped():
    a, b = noise(5, 4, name="a"), noise(5, 4, name="b")
    qa, qb = sinkhorn(a), sinkhorn(b)
    one, other = swapped_prediction([a, b], {0: qa, 1: qb}), swapped_prediction([b, a], {0: qb, 1: qa})
    assert one.item() == pytest.approx(other.item(), abs=1e-14)
    assert swapped_prediction([a, b], {0: qa}).item() != pytest.approx(one.item(), abs=1e-3)


def test_no_gradient_reaches_the_side_that_assigns():
    a, b = noise(5, 4, name="a").requires_grad_(), noise(5, 4, name="b").requires_grad_()
    q = a.softmax(1)
    swapped_prediction([a, b], {0: q}).backward()
    assert a.grad is None or not a.grad.any()
    assert b.grad.abs().max() > 1e-3


def test_gradients_of_the_losses():
    scores = [noise(3, 4, name=f"view {v}").requires_grad_() for v in range(3)]
    targets = {a: sinkhorn(scores[a]) for a in (0, 1)}
    assert torch.autograd.gradcheck(lambda *s: swapped_prediction(s, targets, 0.7), scores)
    labels = torch.tensor([1, -100, 3])
    assert torch.autograd.gradcheck(lambda *s: cluster_cross_entropy(s, labels, 0.7), scores)


def test_cluster_cross_entropy_by_hand():
    scores = [rows([0.1, 0.0], [0.0, 0.0]), rows([0.0, 0.1], [0.3, 0.0])]
    # -log softmax of the first class: log(1 + e^-1), log 2, log(1 + e), log(1 + e^-3)
    terms = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.e), math.log1p(math.exp(-3))]
    labels = torch.tensor([0, 0])
    assert cluster_cross_entropy(scores, labels).item() == pytest.approx(sum(terms) / 4, abs=1e-12)
    labels = torch.tensor([0, -100])
    assert cluster_cross_entropy(scores, labels).item() == pytest.approx((terms[0] + terms[2]) / 2, abs=1e-12)


def test_samples_without_a_cluster_count_nothing():
    scores = noise(4, 3).requires_grad_()
    labels = torch.tensor([2, -100, 0, -100])
    loss = cluster_cross_entropy([scores], labels)
    assert loss.item() == pytest.approx(cluster_cross_entropy([scores[::2]], labels[::2]).item(), abs=1e-12)
    loss.backward()
    assert not scores.grad[1::2].any()
    assert scores.grad[::2].abs().min() > 0
    nothing = cluster_cross_entropy([scores], torch.full((4,), -100))
    assert nothing.item() == 0
    (gradient,) = torch.autograd.grad(nothing, scores)
    assert not gradient.any()


def test_kmeans_by_hand():
    points = rows([1, 0], [0.8, 0.6], [0, 1])
    centroids, labels = spherical_kmeans(points, 2, start=torch.tensor([0, 2]))
    assert labels.tolist() == [0, 0, 1]
    close(centroids, rows([0.9487, 0.3162], [0, 1]))


def test_an_empty_cluster_keeps_its_centroid():
    points = rows([1, 0], [1, 0], [0.8, 0.6], [0, 1])  # of equal centroids the first wins
    centroids, labels = spherical_kmeans(points, 3, start=torch.tensor([0, 1, 3]), iterations=1)
    close(centroids, F.normalize(rows([2.8, 0.6], [1, 0], [0, 1]), dim=1), 1e-12)
    assert labels.tolist() == [1, 1, 0, 2]


def test_points_that_cancel_leave_their_centroid():
    points = rows([0, 1], [1, 0], [-1, 0], [0, -1])  # one cluster whose sum is 0
    centroids, _ = spherical_kmeans(points, 1, start=torch.tensor([1]))
    close(centroids, rows([1, 0]), 0)


def slow_kmeans(points, start, iterations):
    centroids = points[start].clone()
    for _ in range(iterations):
        members = [[] for _ in start]
        for point in points:
            members[int((centroids @ point).argmax())].append(point)
        for c, group in enumerate(members):
            if group:
                centroids[c] = F.normalize(torch.stack(group).mean(0), dim=0)
    return centroids, torch.stack([(centroids @ point).argmax() for point in points])


def test_kmeans_equals_the_obvious_one_and_its_blocks_do_not_show(monkeypatch):
    points = F.normalize(noise(60, 5), dim=1)
    expected = slow_kmeans(points, list(range(7)), 4)
    for search in (2**22, 7 * 11):
        monkeypatch.setattr("tacit.losses.blocks._SEARCH", search)
        centroids, labels = spherical_kmeans(points, 7, start=torch.arange(7), iterations=4)
        close(centroids, expected[0], 1e-12)
        assert torch.equal(labels, expected[1])
    assert not torch.equal(labels, spherical_kmeans(points, 7, start=torch.arange(7), iterations=0)[1])


def test_the_same_place_gives_the_same_clusters():
    points = F.normalize(noise(60, 5), dim=1)
    one, same, other = (spherical_kmeans(points, 7, rng=Rng.of(0)(n)) for n in (1, 1, 2))
    assert torch.equal(one[1], same[1])
    assert torch.equal(one[0], same[0])
    assert not torch.equal(one[1], other[1])
    close(one[0].norm(dim=1), torch.ones(7).double(), 1e-12)
    assert len(set(one[1].tolist())) > 1


def test_rows_are_normalised_in_place():
    weight = rows([3, 4], [0, 0], [0, -2]).requires_grad_()
    assert normalise_rows(weight) is weight
    close(weight.detach(), rows([0.6, 0.8], [0, 0], [0, -1]), 1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: sinkhorn(x[0]),
        lambda x: sinkhorn(x[:0]),
        lambda x: sinkhorn(x, epsilon=0),
        lambda x: sinkhorn(x, iterations=0),
        lambda x: swapped_prediction([x], {0: x}),
        lambda x: swapped_prediction([x, x], {}),
        lambda x: swapped_prediction([x, x], {2: x}),
        lambda x: swapped_prediction([x, x[:, :2]], {0: x}),
        lambda x: swapped_prediction([x, x], {0: x}, 0),
        lambda x: cluster_cross_entropy([], torch.zeros(4)),
        lambda x: cluster_cross_entropy([x], torch.zeros(3)),
        lambda x: cluster_cross_entropy([x], torch.zeros(4), -1),
        lambda x: spherical_kmeans(x, 5, rng=Rng.of(0)),
        lambda x: spherical_kmeans(x, 0, rng=Rng.of(0)),
        lambda x: spherical_kmeans(x, 2),
        lambda x: spherical_kmeans(x, 2, start=torch.arange(3)),
    ],
)
def test_mistakes_are_one_line(wrong):
    with pytest.raises(UsageError) as error:
        wrong(noise(4, 3))
    assert "\n" not in str(error.value)


def measure(scores: Tensor, other: Tensor, queued: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What depends on the whole batch, and a gradient."""
    scores = scores.clone().requires_grad_()
    q = sinkhorn(torch.cat([queued, scores]), iterations=3)[len(queued) :]
    loss = swapped_prediction([other, scores], {0: q}) + cluster_cross_entropy([scores, other], labels)
    loss.backward()
    return {"q": q, "loss": loss.detach()[None], "gradient": scores.grad}


def parts(rank: int, world: int) -> tuple[Tensor, ...]:
    labels = torch.tensor([0, -100, 2, -100, -100, 1])
    scores, other = noise(6, 3, scale=0.2), noise(6, 3, name="other", scale=0.2)
    mine = slice(rank * 6 // world, (rank + 1) * 6 // world)
    return scores[mine], other[mine], noise(5, 3, name="queue", scale=0.2)[rank::world], labels[mine]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    out = measure(*parts(rank, 2)), sinkhorn(parts(rank, 2)[0], distributed=False)
    torch.save(out, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    two = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    one = measure(*parts(0, 1))
    close(torch.cat([found["q"] for found, _ in two]), one["q"], 1e-13)
    close(torch.cat([found["loss"] for found, _ in two]).mean(), one["loss"][0], 1e-13)
    close(torch.cat([found["gradient"] for found, _ in two]) / 2, one["gradient"], 1e-13)
    for rank, (_, alone) in enumerate(two):
        close(alone, sinkhorn(parts(rank, 2)[0]), 1e-13)
    assert (two[0][1] - sinkhorn(parts(0, 1)[0])[:3]).abs().max() > 1e-3
