"""DeepCluster-v2: the clusters of one epoch are the classes of the next."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.data.source import Source
from tacit.encoders.modes import still_statistics
from tacit.losses.gather import rank_and_world
from tacit.methods.clustering.swav import AUGMENT
from tacit.methods.parts.cluster_memory import ClusterMemory
from tacit.methods.parts.multi_crop import MultiCrop
from tacit.methods.parts.rows import rows_of
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.views.image import Augment
from tacit.views.multicrop import Crops

_BLOCK = 256  # images of the first pass at a time


class DeepClusterV2(MultiCrop):
    """DeepCluster-v2 (Caron et al., 2020; arXiv 2006.09882).

    The unit embeddings of two large crops of every image are kept in two banks. Before each epoch
    spherical k-means finds K clusters for each of H heads, head h in bank h mod 2. Their centroids c are
    the head's prototypes and their members' numbers y the labels of the epoch, the same for all crops:

        L = mean over heads h and crops v of -log softmax(<e_v, c_h> / t)[y_h]

    Prototypes get no gradient. The banks are filled by one pass without gradient before the first
    step, and overwritten with the embeddings of each step. An image that an epoch leaves out (of the last,
    incomplete batch) keeps its older embedding, where the released code leaves it without a label.

    Memory grows with the data: 4 (2 D) + 8 H bytes an image, D being the projection (1 kB with the
    defaults), here and in each checkpoint. Random starts of the clustering do not depend on the run's seed.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layer.
        prototypes: K above; default: 3000, or a twentieth of the images if that is fewer (our choice,
            because clusters of one image each teach nothing).
        heads: H above.
        temperature: t above.
        iterations: of k-means.
        augment: how a large crop is made.
        small: number of small crops.
        small_size: their side as a share of the large ones'; 96 of 160 pixels in the paper.
        small_scale: smallest and largest area of small crops, as fractions of the image's.
    """

    slug = "deepcluster"
    title = "Clusters of one epoch are the classes of the next (v2)"
    paper = "arXiv 2006.09882"

    recipe = Recipe(
        optimizer="lars",
        lr=0.3,
        lr_scaling="linear",
        weight_decay=1e-6,
        batch_size=256,
        epochs=400,
        warmup=0.025,
        source="the released code: LARC with trust 0.001, lr 4.8 at batch 4096, 10 warm-up epochs of 400, "
        "cosine, weight decay 1e-6; batch 256 with the rate scaled linearly is our choice",
    )

    row: Tensor
    memory: ClusterMemory

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 128,
        hidden: int = 2048,
        prototypes: int | None = None,
        heads: int = 3,
        temperature: float = 0.1,
        iterations: int = 10,
        augment: Augment = replace(AUGMENT, scale=(0.08, 1.0)),
        small: int = 4,
        small_size: float = 0.6,
        small_scale: tuple[float, float] = (0.05, 0.14),
    ) -> None:
        super().__init__(
            encoder,
            projection=projection,
            hidden=hidden,
            augment=augment,
            small=small,
            small_size=small_size,
            small_scale=small_scale,
        )
        self.clusters = prototypes
        self._memory = partial(
            ClusterMemory, width=projection, heads=heads, temperature=temperature, iterations=iterations
        )

    def prepare(self, source: Source) -> None:
        """Make room for the embeddings of all images."""
        images = len(source)
        clusters = min(3000, max(2, images // 20)) if self.clusters is None else self.clusters
        self.memory = self._memory(images, clusters=clusters)
        # a batch names samples by their positions in the source that this one is a part of
        self.register_buffer("row", rows_of(source), persistent=False)

    def on_epoch(self, source: Source, step: Step) -> None:
        """Cluster the banks again, filled before the first epoch."""
        if not self.memory.filled:
            self._fill(source)
        self.memory.cluster(Rng.of(0)("deepcluster", step.epoch))

    @torch.no_grad()
    def _fill(self, source: Source) -> None:
        """One pass over all images, shared among the processes.

        Here and not in `prepare`, where neither the device nor the other processes are known yet. BatchNorm
        normalises by the block, as it does while learning. All blocks are of one size, the last one
        overlapping another, so that a fresh network sees no block of a few images.
        """
        rank, world = rank_and_world()
        count = len(source)
        size = min(_BLOCK, count)
        blocks = [torch.arange(size) + min(first, count - size) for first in range(0, count, size)]
        blocks += [blocks[-1]] * (-len(blocks) % world)  # each process has as many
        for mine in blocks[rank::world]:
            samples = source.batch(mine).to(self.row.device)
            with still_statistics(self, still=True):
                embeddings = self.embed_crops(self.crops(samples, Rng.of(0)("deepcluster"), small=0))
            self.memory.write(self.row[samples.index], embeddings)
        self.memory.filled.fill_(1)

    def losses(self, views: Crops, step: Step) -> dict[str, Tensor]:
        """The cross-entropy with the clusters of this epoch, in nats; the banks take the embeddings."""
        embeddings = self.embed_crops(views)
        rows = self.row[views.index]
        self.memory.write(rows, embeddings)
        return {"deepcluster": self.memory.loss(embeddings, rows)}
