"""How an anatomical embedding learns from volumes that nobody labelled."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.data.progress import counted
from tacit.data.source import Source
from tacit.encoders.anatomy import COARSE_STRIDE, STRIDE, AnatomyMatcher
from tacit.losses.anatomy import contrast_of_matches
from tacit.methods.distillation.alice.boxes import Scan, random_point, scan_of
from tacit.rng import Rng, seeded

TEMPERATURE = 0.5
SCALE = (0.8, 1.2)
NOISE = 0.02
SIDE = 32  # voxels of the grid: a view has 16^3 fine and 4^3 coarse cells. A multiple of 8
VOLUMES = 4  # per step
ANCHORS = 32  # per direction: 32 places of each view are sought in the other
CANDIDATES = 1024  # of the 8192 cells of both views, drawn for each direction
HARDEST, KEPT = 256, 64  # an eighth of the original's 2000 and 500, as our views have fewer cells
NEAR = 3.0  # voxels of the grid; fine candidates closer than this are no negatives
FAR = 12.5  # the same of coarse candidates: 25 mm at 2 mm, as in the original
RATE = 5e-3


class View(NamedTuple):
    """A cube of a volume: voxels (1, C, S, S, S), `centre` (3,) in voxels of the grid, `scale` of a voxel."""

    voxels: Tensor
    centre: Tensor
    scale: float

    @property
    def side(self) -> int:
        """S."""
        return self.voxels.shape[-1]


def train_matcher(
    matcher: AnatomyMatcher,
    source: Source,
    *,
    steps: int,
    seed: int = 0,
    spacing: float = 2.0,
    side: int = SIDE,
    progress: bool = False,
) -> None:
    """Teach a matcher from the start, on the CPU; the same source and seed give the same weights.

    After SAM (Yan et al., 2022, arXiv 2012.02383, and its released code): two overlapping crops of a volume,
    each rescaled by U(0.8, 1.2), with noise; InfoNCE at temperature 0.5 over matched fine cells with hard
    negatives of both views, and over matched coarse cells with negatives far away and in other volumes.

    Simplified, all our choice: crops are cubes of 32 voxels where the original's have 96 x 96 x 32; fine
    negatives are 64 of the 256 hardest of 1024 random cells, not 500 of the 2000 hardest of all; coarse
    negatives are all that are 25 mm away or in other volumes, not the hardest and a few; places are drawn in
    the body only, as when mining; AdamW with a rate that falls to 0 as a cosine, in `steps` steps of 4
    volumes, not SGD in 20,000.

    spacing: mm of the grid, as in mining; 0 takes the volumes' own voxels. Volumes smaller than a crop are
        seen with air around them.
    side: of a crop in voxels of the grid, a multiple of 8.
    progress: say that it learns, on standard error, with a bar if that is a terminal.
    """
    if progress and steps:
        print(f"an anatomical embedding learns first, {steps:,} steps", file=sys.stderr)
    root = Rng.of(seed)("anatomy")
    matcher.requires_grad_(True).train()
    with seeded(root("weights")):
        for module in matcher.modules():
            if isinstance(module, torch.nn.Conv3d | torch.nn.BatchNorm3d):
                module.reset_parameters()
    optimizer = torch.optim.AdamW(matcher.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    with torch.enable_grad():
        for step in counted(range(steps), steps, progress, "anatomical embedding", unit="steps"):
            rng = root("step", step).numpy()
            chosen = rng.choice(len(source), min(VOLUMES, len(source)), replace=False)
            pairs = [overlapping(scan_of(source[int(i)]), rng, spacing, side) for i in chosen]
            optimizer.zero_grad()
            matching_loss(matcher, pairs, rng).backward()
            optimizer.step()
            schedule.step()
    matcher.zero_grad(set_to_none=True)
    matcher.requires_grad_(False).eval()


def overlapping(scan: Scan, rng: np.random.Generator, spacing: float, side: int) -> tuple[View, View]:
    """Two noisy cubes of a volume whose centres are at most half a side apart along each axis."""
    unit = np.array([spacing / mm if spacing else 1.0 for mm in scan.spacing])  # voxels per voxel of the grid
    place = np.array(random_point(scan, rng), float)
    views = []
    for _ in range(2):
        scale, shift = rng.uniform(*SCALE), rng.uniform(-side / 4, side / 4, 3)
        voxels = cube(scan, place + shift * unit, scale * unit, side)
        noise = rng.normal(0.0, NOISE, voxels.shape)
        voxels = (voxels + torch.from_numpy(noise).float()).clamp(0, 1)
        views.append(View(voxels, torch.from_numpy(place / unit + shift).float(), scale))
    return views[0], views[1]


def cube(scan: Scan, centre: np.ndarray, step: np.ndarray, side: int) -> Tensor:
    """(1, C, S, S, S) around `centre`, (3,) voxels, at distances of `step`, (3,) voxels; trilinear."""
    offsets = np.arange(side) - (side - 1) / 2
    places = [c + s * offsets for c, s in zip(centre, step, strict=True)]
    start = [int(np.floor(p[0])) for p in places]
    size = [int(np.floor(p[-1])) + 2 - first for p, first in zip(places, start, strict=True)]
    box = scan.read(start, size)
    axes = [
        torch.from_numpy(2 * (p - first) / (n - 1) - 1).float()
        for p, first, n in zip(places, start, size, strict=True)
    ]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return F.grid_sample(box[None], torch.stack([z, y, x], -1)[None], align_corners=True)


def matching_loss(
    matcher: AnatomyMatcher, pairs: list[tuple[View, View]], rng: np.random.Generator
) -> Tensor:
    """Fine plus coarse InfoNCE of a batch of overlapping views; a scalar in nats."""
    views = [view for pair in pairs for view in pair]
    fine, coarse = matcher(torch.cat([v.voxels for v in views]))
    fine_loss = _fine_loss(matcher, pairs, fine, coarse.detach(), rng)
    return fine_loss + _coarse_loss(matcher, views, coarse)


def cell_places(view: View, stride: int) -> Tensor:
    """(n, 3) places of a view's cells, in voxels of the grid; the last axis runs fastest."""
    along = torch.arange(view.side // stride) * stride + (stride - 1) / 2 - (view.side - 1) / 2
    return torch.cartesian_prod(along, along, along) * view.scale + view.centre


def nearest_cell(view: View, places: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """(n,) the cell of a view nearest to each place, and whether the place is within the view at all."""
    cells = ((places - view.centre) / view.scale + (view.side - 1) / 2 - (stride - 1) / 2) / stride
    count = view.side // stride
    within = ((cells > -0.5) & (cells < count - 0.5)).all(1)
    x, y, z = cells.round().long().clamp(0, count - 1).T
    return (x * count + y) * count + z, within


def _fine_loss(
    matcher: AnatomyMatcher,
    pairs: list[tuple[View, View]],
    fine: Tensor,
    coarse: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    rough = matcher.upsampled(coarse, fine.shape[2:])
    fine, rough = (x.flatten(2).transpose(1, 2) for x in (fine, rough))  # (views, cells, D)
    losses = []
    for p, pair in enumerate(pairs):
        both = slice(2 * p, 2 * p + 2)
        for a in (0, 1):
            loss = _one_way(pair, a, fine[both], rough[both], rng)
            if loss is not None:
                losses.append(loss)
    return torch.stack(losses).mean() if losses else fine.sum() * 0


def _one_way(
    pair: tuple[View, View], a: int, fine: Tensor, rough: Tensor, rng: np.random.Generator
) -> Tensor | None:
    """Places of view a are sought in the other one; fine and rough are (2, cells, D)."""
    places = [cell_places(view, STRIDE) for view in pair]
    target, within = nearest_cell(pair[1 - a], places[a], STRIDE)
    body = within & (F.avg_pool3d(pair[a].voxels.amax(1, keepdim=True), STRIDE).flatten() > NOISE)
    anchors = _some(body if body.any() else within, ANCHORS, rng)
    if not len(anchors):
        return None
    others = _some(torch.ones(2 * len(within), dtype=torch.bool), CANDIDATES, rng)
    candidates = fine.flatten(0, 1)[others]
    with torch.no_grad():
        hardness = fine[a, anchors] @ candidates.T + rough[a, anchors] @ rough.flatten(0, 1)[others].T
    return contrast_of_matches(
        fine[a, anchors],
        fine[1 - a, target[anchors]],
        candidates,
        torch.cdist(places[a][anchors], torch.cat(places)[others]) > NEAR,
        TEMPERATURE,
        hardness=hardness,
        hardest=HARDEST,
        lottery=torch.from_numpy(rng.random((len(anchors), HARDEST))),
        keep=KEPT,
    )


def _some(allowed: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """At most `count` of the allowed ones, at random."""
    cells = torch.nonzero(allowed)[:, 0]
    return cells[torch.from_numpy(rng.permutation(len(cells))[:count])]


def _coarse_loss(matcher: AnatomyMatcher, views: list[View], coarse: Tensor) -> Tensor:
    """Every coarse cell that the other view of its volume shows too must be found among all cells."""
    cells = coarse[0, 0].numel()
    stride = views[0].side if cells == 1 else COARSE_STRIDE
    vectors = coarse.flatten(2).transpose(1, 2).flatten(0, 1)  # (views x cells, D)
    owner = torch.arange(len(views)).repeat_interleave(cells) // 2
    places = torch.cat([cell_places(v, stride) for v in views])
    anchors, targets = [], []
    for a in range(len(views)):
        other = a ^ 1
        mine = places[a * cells : (a + 1) * cells]
        target, within = nearest_cell(views[other], mine, stride)
        rows = torch.nonzero(within)[:, 0]
        anchors.append(rows + a * cells)
        targets.append(target[rows] + other * cells)
    anchor, target = torch.cat(anchors), torch.cat(targets)
    elsewhere = (owner[anchor][:, None] != owner) | (torch.cdist(places[anchor], places) > FAR)
    if cells == 1:  # one vector for a whole volume: its own views are no negatives, wherever they are
        elsewhere = owner[anchor][:, None] != owner
    if not len(anchor):
        return vectors.sum() * 0
    return contrast_of_matches(vectors[anchor], vectors[target], vectors, elsewhere, TEMPERATURE)
