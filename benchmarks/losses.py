"""Contrastive losses, forward and backward: time and memory against lightly, and growth with the batch.

    python benchmarks/losses.py [--quick]

D = 128, float32, temperature 0.1, two threads. Contestants agree in values and gradients before they race.
Memory: how far a fresh process's peak rises above what it held before the call, inputs and a small first
call included in what it held. `gemm_share`: operations of the matrix products that ours runs (4 D (2N)^2
where tiles are computed again in backward, 3 D (2N)^2 where they are kept: half of what whole matrices
ask for), over time, over the rate of one large product of square matrices on this machine. `pieces` says
what the rest of the time goes to at large N: it is a share of each kind of work on one tile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from race import machine, race, save
from tacit.losses import blocks
from tacit.losses import contrastive as c

D, TEMPERATURE, THREADS = 128, 0.1, 2
Loss = Callable[[Tensor, Tensor], Tensor]

TIME = {256: 0.5, 8192: 0.25}
"""Largest time, as a share of lightly's."""
MEMORY = {8192: 1 / 50}
"""Largest extra memory, as a share of lightly's."""
MOST_GIB = {32768: 0.5}
"""Largest extra memory."""


def losses(peer: str) -> dict[str, Loss]:
    """InfoNCE and DCL of ours or a peer, on pairs of (N, D)."""
    if peer == "tacit":
        return {
            "info_nce": lambda a, b: c.info_nce(a, b, TEMPERATURE),
            "dcl": lambda a, b: c.decoupled_contrastive(a, b, TEMPERATURE),
        }
    if peer == "lightly":
        from lightly.loss import DCLLoss, NTXentLoss

        return {
            "info_nce": NTXentLoss(temperature=TEMPERATURE, memory_bank_size=0),
            "dcl": DCLLoss(temperature=TEMPERATURE),
        }
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return {"info_nce": SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))}


def peak_estimate(peer: str, n: int) -> float:
    """Bytes a call may need, on the safe side: who has not got them is left out."""
    rows = 2 * n
    return {
        "tacit": 4 * blocks.KEEP + 64 * rows * D,
        "lightly": 8 * 4 * rows**2,  # 5.4 and 6.4 matrices measured at N = 1024
        "pytorch-metric-learning": 3 * 4 * rows**3,  # it compares each positive pair with all negative pairs
    }[peer]


def fits(peer: str, n: int) -> bool:
    need, free = peak_estimate(peer, n), psutil.virtual_memory().available
    if need > free:
        print(f"left out: {peer} at N = {n}: may need {need / 2**30:.0f} GiB, free are {free / 2**30:.0f}")
    return need <= free


def pair(n: int) -> tuple[Tensor, Tensor]:
    """Two views of each sample, alike as those of a trained encoder."""
    noise = torch.randn(3, n, D, generator=torch.Generator().manual_seed(n))
    return (noise[0] + 0.5 * noise[1]).requires_grad_(), (noise[0] + 0.5 * noise[2]).requires_grad_()


def step(loss: Loss, a: Tensor, b: Tensor) -> Callable[[], None]:
    def run() -> None:
        a.grad = b.grad = None
        loss(a, b).backward()

    return run


def check(ours: Loss, theirs: Loss, n: int) -> None:
    """Values and gradients agree."""
    a, b = pair(n)
    values = [loss(a, b) for loss in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
    gradients = [torch.autograd.grad(value, a)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * gradients[1].abs().max().item())


def gemm_rate() -> float:
    """Operations per second of one large product of square matrices, the best of some."""
    x, y, out = (torch.randn(4096, 4096) for _ in range(3))
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(x, y, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**3 / best


def operations(n: int) -> int:
    return (3 if (2 * n) ** 2 <= blocks.KEEP else 4) * D * (2 * n) ** 2


def pieces() -> dict[str, Any]:
    """What a tile that is computed again costs, as shares: where the time goes at large N."""
    side = blocks.TILE
    x, out = torch.randn(side, D), torch.zeros(side, D)
    e, w, sums = torch.zeros(side, side), torch.empty(side, side), torch.ones(side)
    runs: dict[str, Callable[[], object]] = {
        "logits": lambda: e.addmm_(x, x.T, beta=0, alpha=0.01),
        "exponentials": lambda: torch.exp2(e, out=w),
        "sums": lambda: (e.sum(0), e.sum(1)),
        "weights": lambda: torch.add(sums[:, None], sums, out=w).mul_(e),
        "gradients": lambda: (out.addmm_(e, x, alpha=1e-9), out.addmm_(e.T, x, alpha=1e-9)),
    }
    seconds = race(runs, rounds=5, at_least=0.05)
    seconds["logits"] *= 2  # forward and backward
    seconds["exponentials"] *= 2
    total = sum(seconds.values())
    return {"what": "pieces", "n": side, **{name: value / total for name, value in seconds.items()}}


def speed(n: int, rate: float) -> list[dict[str, Any]]:
    """Everyone whose memory suffices, racing in one process."""
    ours, rows = losses("tacit"), []
    for name in ours:
        peers = {
            peer: found[name]
            for peer in ("lightly", "pytorch-metric-learning")
            if name in (found := losses(peer)) and fits(peer, n)
        }
        for theirs in peers.values():
            check(ours[name], theirs, min(n, 256))
        a, b = pair(n)
        runs = {key: step(loss, a, b) for key, loss in {"tacit": ours[name], **peers}.items()}
        seconds = race(runs, rounds=15 if n <= 512 else 7 if n <= 2048 else 3)
        row = {"what": "speed", "loss": name, "n": n, "seconds": seconds["tacit"]}
        row |= {f"seconds_{peer}": seconds[peer] for peer in peers}
        row |= {f"of_{peer}": seconds["tacit"] / seconds[peer] for peer in peers}
        row["gemm_share"] = operations(n) / seconds["tacit"] / rate
        if n in TIME and "lightly" in peers:
            row |= {"target": TIME[n], "reached": row["of_lightly"] <= TIME[n]}
        rows.append(row)
    return rows


def probe(peer: str, name: str, n: int) -> dict[str, float]:
    """Seconds and extra GiB of one call, in a fresh process."""
    command = [sys.executable, __file__, "--probe", peer, name, str(n)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return json.loads(found.stdout.splitlines()[-1])


def probe_here(peer: str, name: str, n: int) -> dict[str, float]:
    loss = losses(peer)[name]
    step(loss, *pair(32))()
    run = step(loss, *pair(n))
    before = _restart_peak()
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    extra = _peak() - before
    more = [_seconds(run) for _ in range(50 if n <= 1024 else 5 if n <= 4096 else 0)]
    return {"seconds": sorted([first, *more])[len(more) // 2], "gib": extra / 2**30}


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _restart_peak() -> int:
    """Bytes held now; where the system can, the peak starts again from here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return max(psutil.Process().memory_info().rss, _peak())
    return psutil.Process().memory_info().rss


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(n: int, found: dict[str, float]) -> list[dict[str, Any]]:
    """Extra memory beside lightly's; `found`: ours per loss."""
    rows = []
    for name, ours in found.items():
        row: dict[str, Any] = {"what": "memory", "loss": name, "n": n, "gib": ours}
        if n in MOST_GIB:
            row |= {"target": MOST_GIB[n], "reached": ours <= MOST_GIB[n]}
        elif fits("lightly", n):
            theirs = probe("lightly", name, n)["gib"]
            row |= {"gib_lightly": theirs, "of_lightly": ours / theirs}
            if n in MEMORY:
                row |= {"target": MEMORY[n], "reached": ours / theirs <= MEMORY[n]}
        rows.append(row)
    return rows


def growth(sizes: list[int]) -> list[dict[str, Any]]:
    return [
        {"what": "growth", "loss": name, "n": n, **probe("tacit", name, n)}
        for n in sizes
        for name in losses("tacit")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small batches only; writes no file")
    parser.add_argument("--probe", nargs=3, metavar=("PEER", "LOSS", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.probe:
        print(json.dumps(probe_here(args.probe[0], args.probe[1], int(args.probe[2]))))
        return

    description = machine()
    rate = gemm_rate()
    rows: list[dict[str, Any]] = [{"what": "gemm", "n": 4096, "gflops": rate / 1e9}, pieces()]
    for n in (256, 1024) if args.quick else (256, 2048, 8192):
        rows += speed(n, rate)
    sizes = [64, 256, 1024, 4096] if args.quick else [64, 256, 1024, 4096, 8192, 16384, 32768, 65536]
    grown = growth(sizes)
    for n in (1024,) if args.quick else (8192, 32768):
        rows += memory(n, {row["loss"]: row["gib"] for row in grown if row["n"] == n})
    if args.quick:
        print(*(json.dumps(row) for row in rows + grown), sep="\n")
    else:
        save("losses", description, rows + grown)


if __name__ == "__main__":
    main()
