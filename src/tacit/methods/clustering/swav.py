"""SwAV: each view of an image predicts to which prototypes the other view is assigned."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Step
from tacit.methods.parts.assignments import SwappedAssignments
from tacit.methods.parts.multi_crop import MultiCrop
from tacit.methods.recipe import Recipe
from tacit.views.image import Augment
from tacit.views.multicrop import Crops

AUGMENT = Augment(
    scale=(0.14, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale=0.2, blur=0.5
)


class SwAV(MultiCrop):
    """SwAV (Caron et al., 2020; arXiv 2006.09882).

    Embeddings e of crops are unit vectors, and so are K learned prototypes c. For each of two large
    crops a, Sinkhorn's iterations turn the scores <e_a, c_k> / epsilon of a batch into assignments Q_a that
    use all prototypes alike. Every other crop v must predict them:

        L = mean over a, mean over v != a of -sum_k Q_a[k] log softmax(<e_v, c> / t)[k]

    No gradient passes through Q. In a small batch few samples share out many prototypes: then a queue of
    past embeddings, scored with today's prototypes, joins the Sinkhorn iterations (and nothing else), once
    it is full.

    The augmentation, the optimiser and the numbers below are those of the released code. That
    code's LARC also scales the rate of biases and normalisation layers, and its rate ends at a thousandth;
    here it ends at 0.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layer.
        prototypes: K above; default: 3000, or as many as a batch and the queue have samples if those are
            fewer (the column `prototypes` of metrics.csv says how many).
        temperature: t above.
        epsilon: the smaller, the harder the assignments.
        iterations: of Sinkhorn's algorithm.
        queue: past embeddings of each large crop that join the assignments; 3840 in the paper for batches
            of 256.
        queue_from: share of the run at which the queue begins to fill; 15 of 200 epochs in the paper.
        freeze_prototypes: steps for which the prototypes stand still; default: one epoch, which are the
            paper's 313 steps at batch 4096 and 5005 at batch 256.
        augment: how a large crop is made.
        small: number of small crops.
        small_size: their side as a share of the large ones'; 96 of 224 pixels in the paper.
        small_scale: smallest and largest area of small crops, as fractions of the image's.
    """

    slug = "swav"
    title = "Views predict each other's prototypes"
    paper = "arXiv 2006.09882"

    recipe = Recipe(
        optimizer="lars",
        lr=0.6,
        lr_scaling="linear",
        weight_decay=1e-6,
        batch_size=256,
        epochs=200,
        source="the released code at batch 256: LARC with trust 0.001, lr 0.6 without warm-up, cosine, "
        "weight decay 1e-6, 200 epochs, with a queue of 3840 from epoch 15; at batch 4096 it has lr 4.8 "
        "(pass lr 0.3) and 10 warm-up epochs",
    )
    accumulates = False  # prototypes are shared out among the samples of one part

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 128,
        hidden: int = 2048,
        prototypes: int | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_from: float = 0.075,
        freeze_prototypes: int | None = None,
        augment: Augment = AUGMENT,
        small: int = 6,
        small_size: float = 3 / 7,
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
        self.assign = SwappedAssignments(
            projection,
            prototypes=prototypes,
            temperature=temperature,
            epsilon=epsilon,
            iterations=iterations,
            queue=queue,
            queue_from=queue_from,
            freeze=freeze_prototypes,
        )

    def losses(self, views: Crops, step: Step) -> dict[str, Tensor]:
        """The swapped prediction loss, in nats."""
        loss = self.assign.loss(self.embed_crops(views), step)
        self.note("prototypes", loss.new_full((), self.assign.count(len(views.index))))
        return {"swav": loss}

    def after_step(self, step: Step) -> None:
        """The queue takes this step's embeddings."""
        self.assign.flush()
