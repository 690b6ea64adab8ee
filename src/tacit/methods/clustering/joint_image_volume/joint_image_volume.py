"""Joint image-volume learning: slices and images share one encoder, a transformer joins slices to volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source
from tacit.encoders.modes import evaluating, still_statistics
from tacit.errors import UsageError, unknown
from tacit.losses.gather import rank_and_world
from tacit.losses.masked_slices import masked_slice_loss
from tacit.methods.clustering.joint_image_volume.phases import Order, Phases
from tacit.methods.clustering.joint_image_volume.slices_and_volumes import (
    ImageViews,
    Place,
    SlicesAndVolumes,
    VolumeViews,
)
from tacit.methods.clustering.swav import AUGMENT
from tacit.methods.parts.assignments import SwappedAssignments
from tacit.methods.parts.cluster_memory import ClusterMemory
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.views.image import Augment
from tacit.views.slices import draw_mask
from tacit.views.volume_transforms import SEVEN, VolumeChanges

Clustering = Literal["swav", "deepcluster"]
Embed = Callable[[Samples, Rng], tuple[Tensor, list[Tensor]]]
INTRA, MASK, INTER = range(3)
LOSSES = ("intra", "mask", "inter")
PROTOTYPES = 64
_BLOCK = 256  # slices or images of a pass over the data at a time


class JointImageVolume(SlicesAndVolumes):
    """Joint image-volume learning (Nguyen et al., AAAI 2023; arXiv 2212.01893).

    The encoder is tacit/slices: an image encoder gives each slice of a volume an embedding z_i, a
    transformer with deformable attention joins z_1 .. z_N to Z, of length 1. It learns in three phases:

        A intra  slices, and images beside them, are clustered: SwAV or DeepCluster-v2 on their crops
        B mask   ceil(mask_ratio N) of the z_i are replaced by a learned token and predicted from the others:
                 sum over two views of MSE(linear(f_inter(z)), z) / number hidden; the image encoder and the
                 map to z stand still
        C inter  volumes are clustered by Z, with prototypes of their own; the whole encoder learns

    Views of slices are crops, views of volumes two different changes out of seven. By default one phase
    follows the other, as in the released code, whose stages have an optimiser and a schedule each where here
    one schedule spans the run. `schedule="alternate"` goes through the phases in rounds of whole epochs; it
    is ours, as are equal weights: the code has neither, and the paper's equations could not be read. In
    metrics.csv the losses of the other phases are 0.

    The slice encoder is kept; the image encoder alone is `load_encoder(run).image`.

    DeepCluster's memories take 4 (2 D) + 8 H bytes per slice, image and volume (1 kB a slice with the
    defaults), and are filled by a pass over the data where a phase begins. An image that an epoch leaves out
    keeps its older embedding. Random starts of its clusterings do not depend on the run's seed.

    Args:
        encoder: what learns, a tacit/slices; volumes of (C, X, Y, N), their slices along the last axis.
        clustering: swav or deepcluster, in phases A and C.
        schedule: of the phases, sequential or alternate.
        shares: of the epochs for A, B and C if sequential; 0 leaves a phase out.
        rounds: epochs of A, B and C in each round if alternate.
        weights: of the losses of A, B and C.
        crop: whether a patch of a larger volume lies around its centre, as in the released code, or at
            random.
        slices_per_volume: slices of each volume that a step of A takes; all if there are fewer.
        projection: length of the projected vector in A.
        hidden: width of A's projector.
        prototypes: of slices and images. Default: 64, for deepcluster a twentieth of all if that is fewer
            (3000 in the released code, for far more data).
        volume_prototypes: of volumes. Default: 64, for deepcluster a twentieth of all if that is fewer (the
            released code has 4 for deepcluster, and for swav 3000 for 12 volumes a step, which is
            degenerate).
        heads: clusterings in deepcluster.
        temperature: of the predictions of clusters.
        epsilon: the smaller, the harder swav's assignments.
        iterations: of Sinkhorn's algorithm in swav.
        kmeans_iterations: of k-means in deepcluster.
        queue: past embeddings of slices that join swav's assignments (0 in the released code).
        volume_queue: past embeddings of volumes that do (0 in the released code).
        queue_from: share of a phase at which its queue begins to fill.
        freeze_prototypes: steps of each phase for which swav's prototypes stand still; default: an epoch (313
            steps in the released code).
        mask_ratio: share of the slices that are hidden in B.
        masked_only: whether B's error is that of hidden slices only, rather than of all.
        augment: how a large crop of a slice or image is made.
        small: number of small crops (6 in the released code for swav).
        small_size: their side as a share of the large ones'.
        small_scale: smallest and largest area of small crops, as fractions of the image's.
        changes: what views of volumes change.
    """

    slug = "joint-image-volume"
    title = "Slices and images are clustered, slices guessed, volumes clustered"
    paper = "arXiv 2212.01893"

    recipe = Recipe(
        optimizer="lars",
        lr=0.01,
        weight_decay=1e-6,
        batch_size=12,
        epochs=305,
        warmup=0.1,
        source="the released code's two stages of volumes: LARC with trust 0.001, lr 0.01, 10 warm-up epochs "
        "of 100, cosine, weight decay 1e-6, 6 volumes on each of 2 GPUs; 105 + 100 + 100 epochs. Its stage "
        "of images has lr 0.3 per 256 images, and with swav its last one clips gradients to 2: one recipe "
        "for all three is our choice",
    )
    accumulates = False  # clusters are shared out among the samples of one part

    intra: nn.Module
    inter: nn.Module

    def __init__(
        self,
        encoder: nn.Module,
        *,
        clustering: Clustering = "swav",
        schedule: Order = "sequential",
        shares: tuple[float, float, float] = (105, 100, 100),
        rounds: tuple[int, int, int] = (1, 1, 1),
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        crop: Place = "centre",
        slices_per_volume: int = 8,
        projection: int = 128,
        hidden: int = 2048,
        prototypes: int | None = None,
        volume_prototypes: int | None = None,
        heads: int = 3,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        kmeans_iterations: int = 10,
        queue: int = 1024,
        volume_queue: int = 256,
        queue_from: float = 0.0,
        freeze_prototypes: int | None = None,
        mask_ratio: float = 0.1,
        masked_only: bool = False,
        augment: Augment = AUGMENT,
        small: int = 0,
        small_size: float = 3 / 7,
        small_scale: tuple[float, float] = (0.05, 0.14),
        changes: VolumeChanges = SEVEN,
    ) -> None:
        super().__init__(
            encoder,
            projection=projection,
            hidden=hidden,
            crop=crop,
            slices_per_volume=slices_per_volume,
            augment=augment,
            small=small,
            small_size=small_size,
            small_scale=small_scale,
            changes=changes,
        )
        if clustering not in get_args(Clustering):
            raise unknown("clustering", str(clustering), get_args(Clustering))
        if not 0 <= mask_ratio < 1:
            raise UsageError(f"mask_ratio must lie in [0, 1), not {mask_ratio}")
        self.clustering, self.weights = clustering, weights
        self.phases = Phases(schedule, shares, rounds)
        self.mask_ratio, self.masked_only = mask_ratio, masked_only
        self.mask_token = nn.Parameter(torch.randn(self.num_features))
        self.decode = nn.Linear(self.num_features, self.num_features)
        self.width = {INTRA: projection, INTER: self.num_features}
        self.wanted = {INTRA: prototypes, INTER: volume_prototypes}
        self.queue = {INTRA: queue, INTER: volume_queue}
        self.of_swav: dict[str, Any] = {
            "temperature": temperature,
            "epsilon": epsilon,
            "iterations": iterations,
            "queue_from": queue_from,
            "freeze": freeze_prototypes,
        }
        self.of_deepcluster: dict[str, Any] = {
            "temperature": temperature,
            "heads": heads,
            "iterations": kmeans_iterations,
        }

    def prepare(self, source: Source) -> None:
        """Make prototypes and room for the embeddings of all slices, images and volumes."""
        super().prepare(source)
        images = 0 if self.images is None else len(self.images)
        self.intra = self._objective(INTRA, self.volumes * self.slices + images)
        self.inter = self._objective(INTER, self.volumes)

    def _objective(self, level: int, samples: int) -> nn.Module:
        """Prototypes of slices and images, or of volumes."""
        wanted, width = self.wanted[level], self.width[level]
        if self.clustering == "swav":
            clusters = PROTOTYPES if wanted is None else wanted
            return SwappedAssignments(width, prototypes=clusters, queue=self.queue[level], **self.of_swav)
        clusters = min(PROTOTYPES, max(2, samples // 20)) if wanted is None else wanted
        _check_clusters(level, clusters, samples, "that there are")
        return ClusterMemory(samples, width, clusters=clusters, **self.of_deepcluster)

    def views(self, batch: Batch, rng: Rng, step: Step) -> ImageViews | VolumeViews:
        """What the step's phase looks at."""
        phase = self.phases.phase(step)
        if phase == INTRA:
            if batch.beside is not None and self.images is None and self.clustering == "deepcluster":
                raise UsageError("deepcluster must know the source of the images beside: set method.images")
            return self.image_views(batch, rng)
        volumes = batch.unlabelled
        views = self.volume_views(volumes, rng)
        if phase == INTER:
            return views
        mask = draw_mask(volumes.index, rng("mask"), self.mask_ratio, volumes.data.shape[-1])
        return views._replace(mask=mask)

    def losses(self, views: ImageViews | VolumeViews, step: Step) -> dict[str, Tensor]:
        """The loss of the step's phase, times its weight; 0 for the others."""
        phase, now = self.phases.phase(step), self.phases.within(step)
        if isinstance(views, ImageViews):
            loss = self._agreement(INTRA, self.embed_crops(views), views.rows, now)
        elif phase == MASK:
            loss = self.masked_loss(views)
        else:
            loss = self._agreement(INTER, self.embed_views(views), views.rows, now)
        terms = {name: loss.new_zeros(()) for name in LOSSES}
        return {**terms, LOSSES[phase]: self.weights[phase] * loss}

    def masked_loss(self, views: VolumeViews) -> Tensor:
        """How badly slice embeddings are guessed where some are hidden, summed over both views."""
        assert views.mask is not None
        encoder = self.joint
        with torch.no_grad(), evaluating(encoder.pyramid, encoder.to_tokens):
            tokens = encoder.embed_slices(torch.cat([views.first, views.second]))
        hidden = views.mask.repeat(2, 1)[..., None]
        guessed = self.decode(encoder.join(torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)))
        return masked_slice_loss(guessed.chunk(2), tokens.chunk(2), views.mask, masked_only=self.masked_only)

    def _agreement(self, level: int, embeddings: list[Tensor], rows: Tensor, now: Step) -> Tensor:
        """SwAV's or DeepCluster's loss of slices and images, or of volumes."""
        objective = self.intra if level == INTRA else self.inter
        if isinstance(objective, ClusterMemory):
            objective.write(rows, embeddings)
            return objective.loss(embeddings, rows)
        swapped = cast(SwappedAssignments, objective)
        samples = len(rows) * rank_and_world()[1] + self.queue[level]
        _check_clusters(level, swapped.prototypes.out_features, samples, "of a batch and its queue")
        return swapped.loss(embeddings, now)

    def after_step(self, step: Step) -> None:
        """SwAV's queues take this step's embeddings."""
        for objective in (self.intra, self.inter):
            if isinstance(objective, SwappedAssignments):
                objective.flush()

    def on_epoch(self, source: Source, step: Step) -> None:
        """DeepCluster's clusters of the epoch, after a pass over the data where a phase begins."""
        phase = self.phases.phase(step)
        objective = self.intra if phase == INTRA else self.inter
        if phase == MASK or not isinstance(objective, ClusterMemory):
            return
        if self.phases.begins(step):
            volumes = max(2, _BLOCK // self.slices)
            self._fill(objective, source, volumes, self._all_slices if phase == INTRA else self._all_volumes)
            if phase == INTRA and self.images is not None:
                self._fill(objective, self.images, _BLOCK, self._all_beside)
            objective.filled.fill_(1)
        objective.cluster(Rng.of(0)("joint", phase, step.epoch))

    def _all_slices(self, volumes: Samples, rng: Rng) -> tuple[Tensor, list[Tensor]]:
        which = torch.arange(self.slices, device=volumes.index.device).expand(len(volumes), -1)
        views = self.slice_views(volumes, which, rng, small=0)
        return views.rows, self.embed_crops(views)

    def _all_beside(self, images: Samples, rng: Rng) -> tuple[Tensor, list[Tensor]]:
        views = self.beside_views(images, rng, small=0)
        return views.rows, self.embed_crops(views)

    def _all_volumes(self, volumes: Samples, rng: Rng) -> tuple[Tensor, list[Tensor]]:
        views = self.volume_views(volumes, rng)
        return views.rows, self.embed_views(views)

    @torch.no_grad()
    def _fill(self, memory: ClusterMemory, source: Source, size: int, embed: Embed) -> None:
        """One pass without gradient over a source, shared among the processes.

        BatchNorm normalises by the block, as it does while learning. All blocks are of one size, the last
        one overlapping another.
        """
        rank, world = rank_and_world()
        count = len(source)
        size = min(size, count)
        blocks = [torch.arange(size) + min(first, count - size) for first in range(0, count, size)]
        blocks += [blocks[-1]] * (-len(blocks) % world)  # each process has as many
        for mine in blocks[rank::world]:
            samples = source.batch(mine).to(self.row.device)
            if source is self.images:
                # a part of a source names its samples by the whole's positions
                samples.index = mine.to(self.row.device)
            with still_statistics(self, still=True):
                memory.write(*embed(samples, Rng.of(0)("joint")))


def _check_clusters(level: int, clusters: int, samples: int, which: str) -> None:
    if clusters > samples:
        option, kind = ("prototypes", "slices") if level == INTRA else ("volume_prototypes", "volumes")
        raise UsageError(
            f"{clusters} prototypes are more than the {samples} {kind} {which}: pass --method.{option} "
            f"{samples} or less"
        )
