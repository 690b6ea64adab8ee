"""NNCLR: the positive of an image is its nearest neighbour among past images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Step
from tacit.data.source import Source
from tacit.encoders.heads import mlp
from tacit.losses.contrastive import decoupled_contrastive_nearest, info_nce_nearest, nearest
from tacit.methods.parts.queue import Queue
from tacit.methods.parts.two_views import TwoViews
from tacit.methods.recipe import Recipe
from tacit.views.image import Augment


class NNCLR(TwoViews):
    """Nearest-neighbour contrastive learning (Dwibedi et al., 2021; arXiv 2104.14548).

    Instead of the other view itself, its nearest neighbour nn(z) in a queue of past embeddings is
    the positive: semantic variation that no augmentation makes. A predictor gives p from the
    projection z; gradient flows through p only.

        L_i = -<nn(z_i1), p_i2>/t + log sum_j exp(<nn(z_i1), p_j2>/t)      and the same with 1, 2 swapped

    With `decoupled` the sum leaves j = i out. How the authors of DCL decoupled NNCLR is not known to
    us: this form is a guess. `same_view_negatives` adds the neighbours' and the predictions' own
    blocks to the negatives, as one library does.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layers.
        prediction_hidden: width of the predictor's hidden layer.
        temperature: t above.
        queue: number of past embeddings kept; at most a quarter of the images, so that the neighbour is
            seldom the image itself (our choice).
        decoupled: whether the positive is left out of the denominator.
        same_view_negatives: whether vectors of the same view repel, too.
        augment: how a view is made.
    """

    slug = "nnclr"
    title = "Nearest neighbours as positives"
    paper = "arXiv 2104.14548"

    recipe = Recipe(
        optimizer="lars",
        lr=0.4,
        lr_scaling="linear",
        weight_decay=1e-5,
        batch_size=256,
        epochs=400,
        warmup=0.025,
        source="LARS, lr 0.4, weight decay 1e-5, batch 256 and queue 65,536 from solo-learn's CIFAR recipe "
        "(read in the DCL card); 400 epochs is the DCL abstract's NNCLR setting; warm-up is our choice",
    )
    accumulates = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 256,
        hidden: int = 2048,
        prediction_hidden: int = 4096,
        temperature: float = 0.2,
        queue: int = 65536,
        decoupled: bool = False,
        same_view_negatives: bool = False,
        augment: Augment = Augment(blur=0.5),
    ) -> None:
        super().__init__(encoder, augment)
        self.temperature = temperature
        self.same_view_negatives = same_view_negatives
        self.contrast = decoupled_contrastive_nearest if decoupled else info_nce_nearest
        self.project = mlp([self.num_features, hidden, hidden, projection], last_norm=True)
        self.predict_neighbour = mlp([projection, prediction_hidden, projection])
        self.queue = Queue(queue, projection)

    def prepare(self, source: Source) -> None:
        """Shorten the queue to a quarter of the images."""
        self.queue.shorten(max(1, len(source) // 4))

    def losses(self, views: tuple[Tensor, Tensor], step: Step) -> dict[str, Tensor]:
        """The contrastive loss towards the neighbours, in nats."""
        z1, z2 = (self.project(self.encoder(view)) for view in views)
        p1, p2 = self.predict_neighbour(z1), self.predict_neighbour(z2)
        loss = (self._one_way(z1, p2) + self._one_way(z2, p1)) / 2
        self.queue.put(z1)
        return {"nnclr": loss}

    def _one_way(self, z: Tensor, prediction: Tensor) -> Tensor:
        neighbour = nearest(F.normalize(z.detach(), dim=1), self.queue.rows)
        return self.contrast(
            neighbour, prediction, self.temperature, same_view_negatives=self.same_view_negatives
        )

    def after_step(self, step: Step) -> None:
        """The queue takes this step's embeddings."""
        self.queue.flush()
