"""The claim of joint image-volume learning: volumes are known better than by clustering slices alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tacit.claims.base import Claim, Outcome, Parameters, Part, Setting, combined, verdict_on
from tacit.claims.frozen_volumes import labelled_draws, read_slices, size_scores, slice_score, truth_of
from tacit.claims.hippocampus import COUNT, TEST, open_hippocampus, write_hippocampus
from tacit.data.volume.volumes import Volumes, volumes_of
from tacit.encoders.zoo import build_encoder
from tacit.evaluation.collapse import effective_rank
from tacit.evaluation.statistics import mean_interval
from tacit.training.fit import fit

_RELEVANT = 2.0  # points of R2; a smaller gain would not be a reason to add two phases
_MARGIN = 2.0  # points of balanced accuracy within which two encoders of slices count as equally good
_FEW = 20  # labelled volumes
_SLICE_DRAWS = 5  # of them, of the ten, for what slices show: a logistic regression takes a second
_PATCH = (32, 48, 32)
_ENCODER = (
    "tacit/slices?image=tacit/convnet?width=8;depth=4&dim=64&depth=2&heads=4&dim_head=16&hidden=72"
    "&downsample=2&groups=4&dropout=0"
)
_OPTIONS: dict[str, Any] = {
    "hidden": 128,
    "projection": 64,
    "slices_per_volume": 8,
    "augment": {"scale": (0.3, 1.0), "flip": 0.0, "brightness": 0.4, "contrast": 0.4, "blur": 0.0},
    "small": 2,
    "small_size": 0.5,
    "small_scale": (0.1, 0.3),
    "changes": {"changes": ("affine", "anisotropy", "noise", "blur", "bias", "gamma"), "zoom": 0.0},
}
# no queue of volumes, as in the released code: while Z moves, past ones differ from today's by more than
# these volumes differ among themselves, and the loss stays above that of a guess (seen on training volumes)
_CLUSTERING: dict[str, dict[str, Any]] = {
    "swav": {"prototypes": 64, "queue": 1024, "volume_prototypes": 8, "volume_queue": 0},
    "deepcluster": {"prototypes": 64, "volume_prototypes": 10},
}


@dataclass(frozen=True, slots=True)
class _Arm:
    """What is learned, and from what a volume is read.

    shares: of the epochs, for slices, hidden slices and volumes. reading: a field of `Readings`. part: of all
        epochs.
    """

    shares: tuple[float, float, float]
    reading: str = "joined"
    attention: str = "deformable"
    part: float = 1.0


_RANDOM, _PLAIN, _JOINT = "untrained", "slices alone", "joint"
_ARMS = {
    _RANDOM: _Arm((0, 0, 0)),
    _PLAIN: _Arm((1, 0, 0), "mean"),
    "slices alone, a third": _Arm((1, 0, 0), "mean", part=105 / 305),
    "slices, volumes": _Arm((105, 0, 100)),
    _JOINT: _Arm((105, 100, 100)),
    "joint, plain attention": _Arm((105, 100, 100), attention="plain"),
}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of the experiment. runs: (clustering, arm). learn, test: numbers of volumes."""

    runs: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    epochs: int
    batch: int
    learn: range
    test: range


_DECIDE = tuple((clustering, arm) for clustering in ("swav", "deepcluster") for arm in (_PLAIN, _JOINT))
_FULL = _Plan(
    (("none", _RANDOM), *(("swav", arm) for arm in _ARMS if arm != _RANDOM), *_DECIDE[2:]),
    (0, 1, 2),
    40,
    20,
    range(COUNT - TEST),
    range(COUNT - TEST, COUNT),
)
# volumes of the test part are not looked at before the full run
_QUICK = _Plan((("none", _RANDOM), *_DECIDE), (0, 1), 6, 10, range(40), range(40, 52))


def _experiment(setting: Setting) -> Outcome:
    plan = _QUICK if setting.quick else _FULL
    folder = write_hippocampus(setting, "joint-image-volume", plan.learn, plan.test)
    grid = [
        {
            "data": str(folder),
            "clustering": clustering,
            "arm": arm,
            "epochs": plan.epochs,
            "batch": plan.batch,
            "seed": seed,
        }
        for seed in plan.seeds
        for clustering, arm in plan.runs
    ]
    results = setting.cells(_grades, grid)
    simple = setting.cells(_simple, [{"data": str(folder), "seed": seed} for seed in plan.seeds])
    return _judge(plan, grid, results, simple)


def _grades(parameters: Parameters) -> dict[str, Any]:
    """One run, its frozen encoder read out on the test volumes."""
    volumes = _opened(parameters)
    learn = volumes.splits["train"]
    encoder, losses = _learned(parameters, volumes)
    readings, truth = read_slices(encoder, volumes), truth_of(volumes)
    draws = labelled_draws(learn, _FEW, parameters["seed"])
    sizes = {
        f"{name}_{labels}": score
        for name in ("joined", "mean")
        for labels, score in size_scores(getattr(readings, name), truth, volumes.splits, draws).items()
    }
    return {
        **sizes,
        "slices": slice_score(readings.slices, truth, volumes.splits["test"], draws[:_SLICE_DRAWS]),
        "effective_rank": effective_rank(torch.from_numpy(readings.joined[learn])),
        "losses": losses,
    }


def _learned(parameters: Parameters, volumes: Volumes) -> tuple[nn.Module, dict[str, float]]:
    """The encoder of an arm, and each phase's loss at its end."""
    arm, clustering = _ARMS[parameters["arm"]], parameters["clustering"]
    spec = f"{_ENCODER}&attention={arm.attention}"
    if not any(arm.shares):
        return build_encoder(spec, channels=1, patch=_PATCH, seed=parameters["seed"]), {}
    with tempfile.TemporaryDirectory() as place:
        run = fit(
            "joint-image-volume",
            volumes,
            labels="none",
            out=Path(place) / "run",
            encoder=spec,
            options={
                **_OPTIONS,
                **_CLUSTERING[clustering],
                "clustering": clustering,
                "shares": arm.shares,
            },
            epochs=max(1, round(parameters["epochs"] * arm.part)),
            batch_size=parameters["batch"],
            optimizer="adamw",
            lr=2e-3,
            weight_decay=1e-4,
            schedule="cosine 7/16",  # at 0 for the last phase, cosine would leave volumes unlearned
            seed=parameters["seed"],
            on_collapse="warn",  # what a run without a use is worth, the test says
            device="cpu",
            workers=0,
            quiet=True,
        )
        ends: dict[str, float] = {}
        for row in run.metrics():
            ends |= {name: float(row[name]) for name in ("intra", "mask", "inter") if float(row[name] or 0)}
        return run.encoder(), ends


def _simple(parameters: Parameters) -> dict[str, Any]:
    """What can be read without any encoder: the volumes' sides, and their grey values in 1,000 boxes."""
    volumes = _opened(parameters)
    truth, draws = truth_of(volumes), labelled_draws(volumes.splits["train"], _FEW, parameters["seed"])
    boxes = F.adaptive_avg_pool3d(volumes.batch(range(len(volumes))).data, 10).flatten(1).numpy()
    kinds = {"sides": volumes.shapes.astype(np.float64), "boxes": boxes}
    return {name: size_scores(values, truth, volumes.splits, draws) for name, values in kinds.items()}


def _opened(parameters: Parameters) -> Volumes:
    return volumes_of(open_hippocampus(Path(parameters["data"]))).with_patch(_PATCH)


def _judge(
    plan: _Plan,
    grid: Sequence[Parameters],
    results: Sequence[Mapping[str, Any]],
    simple: Sequence[Mapping[str, Mapping[str, float]]],
) -> Outcome:
    found = {(p["clustering"], p["arm"], p["seed"]): r for p, r in zip(grid, results, strict=True)}

    def values(clustering: str, arm: str, name: str) -> np.ndarray:
        scale = 1 if name == "effective_rank" else 100
        return scale * np.array([found[clustering, arm, seed][name] for seed in plan.seeds])

    parts: list[Part] = []
    for clustering in dict.fromkeys(clustering for clustering, arm in plan.runs if arm == _JOINT):
        parts += _parts(clustering, partial(values, clustering))
    rows = []
    for clustering, arm in plan.runs:
        losses = [found[clustering, arm, seed]["losses"] for seed in plan.seeds]
        rows.append(
            {**_row(clustering, arm, partial(values, clustering, arm)), **_loss_column(clustering, losses)}
        )
    rows += [_simple_row(name, simple) for name in ("sides", "boxes")]
    return Outcome(
        verdict=combined([part.verdict for part in parts]),
        because="; ".join(f"{part.question}: {part.effect} {part.unit} ({part.verdict})" for part in parts),
        parts=tuple(parts),
        tables={f"Test volumes, {len(plan.seeds)} seeds; R2 and balanced accuracy in %": rows},
        details={
            "runs": [{**dict(p), **r, "data": "hippocampus"} for p, r in zip(grid, results, strict=True)],
            "without an encoder": [dict(each) for each in simple],
        },
    )


def _parts(clustering: str, values: Any) -> list[Part]:
    """The two questions about one clustering. values: (arm, name) -> one number per seed."""
    sizes = mean_interval(values(_JOINT, "joined_few") - values(_PLAIN, "mean_few"))
    slices = mean_interval(values(_JOINT, "slices") - values(_PLAIN, "slices"))
    above = replace(slices, low=slices.low + _MARGIN, high=slices.high + _MARGIN)  # the margin is its zero
    return [
        Part(
            f"{clustering}: sizes from {_FEW} labelled volumes, joint minus slices alone",
            sizes,
            "points of R2",
            verdict_on(sizes, relevant=_RELEVANT),
        ),
        Part(
            f"{clustering}: slices, joint minus slices alone, to be above -{_MARGIN:g}",
            slices,
            "points of balanced accuracy",
            verdict_on(above, relevant=0.0),
        ),
    ]


def _row(clustering: str, arm: str, values: Any) -> dict[str, str]:
    """values: name -> one number per seed."""
    reading = _ARMS[arm].reading
    other = "mean" if reading == "joined" else "joined"
    return {
        "clustering": "" if clustering == "none" else clustering,
        "arm": arm,
        "volumes are": "Z" if reading == "joined" else "mean of slices",
        f"sizes, {_FEW} labels": _spread(values(f"{reading}_few")),
        "sizes, all labels": _spread(values(f"{reading}_all")),
        f"the other reading, {_FEW} labels": _spread(values(f"{other}_few")),
        f"slices, {_FEW} labels": _spread(values("slices")),
        "effective rank of Z": f"{values('effective_rank').mean():.1f}",
    }


def _loss_column(clustering: str, losses: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """How far the clustering of volumes came; at the loss of a guess it has found nothing."""
    ends = [each["inter"] for each in losses if "inter" in each]
    if not ends:
        return {}
    guess = np.log(_CLUSTERING[clustering]["volume_prototypes"])
    return {"loss of volumes (a guess)": f"{np.mean(ends):.2f} ({guess:.2f})"}


def _simple_row(name: str, simple: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    few, every = (100 * np.array([each[name][labels] for each in simple]) for labels in ("few", "all"))
    words = {"sides": "the three sides of the file", "boxes": "grey values of 10 x 10 x 10 boxes"}
    return {
        "arm": "no encoder",
        "volumes are": words[name],
        f"sizes, {_FEW} labels": _spread(few),
        "sizes, all labels": _spread(every),
    }


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


CLAIM = Claim(
    name="joint-image-volume",
    statement="An encoder that learns from slices and then from whole volumes knows volumes better than one "
    "that learns from their slices alone, and slices as well.",
    source="Nguyen et al., Joint Self-Supervised Image-Volume Representation Learning with Intra-Inter "
    "Contrastive Clustering, AAAI 2023, arXiv 2212.01893 (abstract: improves plain 2-D DeepCluster-v2 and "
    "SwAV by a significant margin, on segmentation and detection that need other data)",
    design=f"msd_hippocampus (260 MR volumes of about 35 x 50 x 36 voxels of 1 mm), the last {TEST} for "
    f"test. The other {COUNT - TEST} are learned from without masks. Arms: slices alone (phase A, SwAV or "
    "DeepCluster-v2, for all epochs); joint (A, B hidden slices, C volumes, 105:100:100 of the epochs, "
    "as in the released code). With SwAV also: slices alone for a third of the epochs, as long as in "
    "the joint run; A and C; joint with plain attention. All: 4 convolutional layers from 8 channels, 2 "
    f"layers of 4 heads over slices, Z of 64 numbers, patches of {' x '.join(map(str, _PATCH))}, 20 "
    f"volumes a step and 8 slices of each in A, {_FULL.epochs} epochs, AdamW 2e-3, a tenth of warm-up, "
    "cosine 7/16; crops of 30 to 100 % and two small ones, no mirroring; volumes are neither magnified "
    "nor reversed, for size and place are asked; SwAV with 64 prototypes and a queue of 1,024 for "
    "slices, 8 and none for volumes; DeepCluster with 64 and 10. The last step counts; nothing is "
    "selected. Then the encoder is frozen. Sizes: ridge regression (strength by leave-one-out among the "
    "labelled) of the ml of the anterior and the posterior part, R2 on the test volumes, mean of both, "
    f"from {_FEW} labelled volumes (mean over ten draws) and from all; from Z, and for slices alone from "
    "the mean of the slices' features, whose transformer has not learned. Slices: which parts an axial "
    "slice shows (none, either, both), logistic regression on the image encoder's features of all "
    f"slices of {_FEW} volumes (mean over five draws), balanced accuracy. Seeds 0 to {_FULL.seeds[-1]} "
    "for weights, order and draws, the same for all arms. Decision for each of SwAV and DeepCluster: 95 "
    f"% intervals (Student's t over seeds) of joint minus slices alone. Sizes from {_FEW} labels: holds "
    f"if the interval lies above 0, does not below {_RELEVANT:g} points of R2. Slices: holds if it lies "
    f"above -{_MARGIN:g} points, does not below that. All four parts must hold. The other rows are shown "
    "and decide nothing. Found beforehand on the volumes that are learned from: by their losses the rate, "
    "its course, the batch, no queue of volumes and no dropout; by their masks that features are "
    "standardised over all of them. Test volumes were not looked at.",
    experiment=_experiment,
)
