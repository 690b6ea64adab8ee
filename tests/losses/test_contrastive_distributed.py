"""Two processes with half a batch each give the losses and gradients of one process with the whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tacit.errors import UsageError
from tacit.losses import blocks
from tacit.losses import contrastive as c
from tacit.losses.gather import gather
from tacit.rng import Rng

WORLD, LOCAL, WIDTH = 2, 3, 5
SINGLE = 0.3, 0.002  # at the second, rows get maxima of their own, and alone a process has no negatives


def noise(n: int, name: str) -> Tensor:
    return torch.randn(n, WIDTH, generator=Rng.of(0)("two processes", name).torch(), dtype=torch.float64)


def network() -> nn.Linear:
    layer = nn.Linear(WIDTH, 4, bias=False, dtype=torch.float64)
    weight = torch.randn(4, WIDTH, generator=Rng.of(0)("weight").torch(), dtype=torch.float64)
    layer.weight.data.copy_(weight)
    return layer


def _queue(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: loss(a, b, noise(9, "queue")[:, :4], 0.3)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "info_nce": lambda a, b: c.info_nce(a, b, 0.3),
    "dcl": lambda a, b: c.decoupled_contrastive(a, b, 0.3),
    "dclw": lambda a, b: c.decoupled_contrastive_weighted(a, b, 0.3),
    "dclw_attached": lambda a, b: c.decoupled_contrastive_weighted(a, b, 0.3, detach_weight=False),
    "info_nce_queue": _queue(c.info_nce_queue),
    "dcl_queue": _queue(c.decoupled_contrastive_queue),
    "info_nce_nearest": lambda a, b: c.info_nce_nearest(a, b, 0.3),
    "dcl_nearest": lambda a, b: c.decoupled_contrastive_nearest(a, b, 0.3),
    "info_nce_nearest_same": lambda a, b: c.info_nce_nearest(a, b, 0.3, same_view_negatives=True),
    "dcl_nearest_same": lambda a, b: c.decoupled_contrastive_nearest(a, b, 0.3, same_view_negatives=True),
}


def measure(layer: nn.Module, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Loss and gradients of every loss, and the per-anchor diagnostics."""
    out: dict[str, Any] = {}
    for name, loss in LOSSES.items():
        layer.zero_grad()
        inputs = torch.cat([a, b]).requires_grad_()
        value = loss(*layer(inputs).chunk(2))
        value.backward()
        weight = next(layer.parameters()).grad
        assert weight is not None
        assert inputs.grad is not None
        out[name] = value.detach(), weight.clone(), inputs.grad.clone()
    out["q"] = c.npc_multiplier(a, b, 0.3)
    out["weights"] = c.dclw_weights(a, b)
    return out


def single(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    a = a.clone().requires_grad_()
    value = c.info_nce(a, b, temperature)
    return value.detach(), torch.autograd.grad(value, a)[0]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    mine = slice(rank * LOCAL, (rank + 1) * LOCAL)
    a, b = noise(WORLD * LOCAL, "a"), noise(WORLD * LOCAL, "b")
    out = measure(DistributedDataParallel(network()), a[mine], b[mine])
    blocks.KEEP, blocks.TILE = 0, 2
    out["tiled"] = measure(DistributedDataParallel(network()), a[mine], b[mine])
    out["alone"] = c.info_nce(a[mine], b[mine], 0.3, distributed=False)
    out["single"] = [single(a[rank : rank + 1], b[rank : rank + 1], t) for t in SINGLE]

    rows = a[mine].clone().requires_grad_()
    gathered = gather(rows)
    (gathered * (rank + 1) * torch.arange(1.0, 1 + len(gathered))[:, None]).sum().backward()
    out["gather"] = gathered.detach(), rows.grad
    # Neither the rows nor what comes back for them is contiguous.
    columns = a[mine].clone().requires_grad_()
    gathered = gather(columns.T)
    gathered.sum().backward()
    out["gather_columns"] = gathered.detach(), columns.grad
    try:
        c.info_nce(a[: 2 + rank], b[: 2 + rank])
    except UsageError as error:
        out["unequal"] = str(error)
    torch.save(out, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return measure(network(), noise(WORLD * LOCAL, "a"), noise(WORLD * LOCAL, "b"))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_equal_one(
    name: str, tiled: bool, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    value, weight, inputs = one[name]
    two = [rank["tiled"] for rank in two] if tiled else two
    same(torch.stack([rank[name][0] for rank in two]).mean(), value)
    assert weight.abs().max() > 1e-2
    for rank in two:  # DDP has averaged them
        same(rank[name][1], weight)
    a, b = torch.stack([rank[name][2].view(2, LOCAL, WIDTH) for rank in two], dim=1).flatten(1, 2) / WORLD
    same(torch.cat([a, b]), inputs)


def test_diagnostics_per_anchor(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    q = torch.stack([rank["q"].view(2, LOCAL) for rank in two], dim=1).flatten()
    same(q, one["q"])
    same(torch.cat([rank["weights"] for rank in two]), one["weights"])


def test_distributed_false_stays_within_the_process(two: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(two):
        mine = slice(rank * LOCAL, (rank + 1) * LOCAL)
        a, b = noise(WORLD * LOCAL, "a")[mine], noise(WORLD * LOCAL, "b")[mine]
        same(found["alone"], c.info_nce(a, b, 0.3))


@pytest.mark.parametrize("i", range(2))
def test_one_sample_on_each_process_is_enough(i: int, two: list[dict[str, Any]]) -> None:
    a, b = noise(WORLD * LOCAL, "a")[:2], noise(WORLD * LOCAL, "b")[:2]
    value, gradient = single(a, b, SINGLE[i])
    same(torch.stack([rank["single"][i][0] for rank in two]).mean(), value)
    assert gradient.abs().max() > 1e-3
    same(torch.cat([rank["single"][i][1] for rank in two]) / WORLD, gradient)


def test_gather_keeps_the_order_of_ranks_and_sums_gradients(two: list[dict[str, Any]]) -> None:
    a = noise(WORLD * LOCAL, "a")
    for rank, found in enumerate(two):
        same(found["gather"][0], a)
        first = rank * LOCAL
        expected = (1 + 2) * torch.arange(first + 1.0, first + 1 + LOCAL, dtype=torch.float64)
        same(found["gather"][1], expected[:, None].expand(LOCAL, WIDTH))
        same(found["gather_columns"][0], torch.cat([x.T for x in a.chunk(WORLD)]))
        same(found["gather_columns"][1], torch.full((LOCAL, WIDTH), 2.0, dtype=torch.float64))


def test_unequal_batches_are_one_clear_line(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "hold 2, 3 rows" in found["unequal"]
        assert "\n" not in found["unequal"]


def test_gather_alone_is_the_identity() -> None:
    x = noise(3, "x")
    assert gather(x) is x
