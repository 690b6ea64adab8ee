"""Alice: the same place of another body is the better positive; masked tokens are aligned, then compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Batch, Step
from tacit.data.source import Sample, Source
from tacit.data.volume.form import VolumeForm
from tacit.encoders.anatomy import AnatomyMatcher, Coarse
from tacit.encoders.card import card_of
from tacit.encoders.casa import CASA
from tacit.encoders.distillation_head import DistillationHead, HeadOutput
from tacit.encoders.pyramid import pyramid_of
from tacit.errors import UsageError, unknown
from tacit.losses.distillation import inter_patient, intra, teacher_temperature_at, update_centre
from tacit.methods.base import Method
from tacit.methods.distillation.alice.boxes import crop, scan_of
from tacit.methods.distillation.alice.mining import (
    AnatomyMiner,
    Candidate,
    RandomPairMiner,
    SameVolumeMiner,
    ViewMiner,
)
from tacit.methods.parts.teacher import follow, frozen_copy
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.views.draw import between
from tacit.views.mask import block_mask
from tacit.views.noise import pixel_noise
from tacit.views.volume_transforms import turn

Miner = Literal["anatomy", "same", "random"]
TeacherSource = Literal["decoder", "encoder"]
MaskShape = Literal["column", "cube"]
VARIANCE = 0.01  # of the noise, and degrees of the rotation, of augment="rotate_noise" (the released code)
DEGREES = 15.0


class Views(NamedTuple):
    """All random choices of a step; rows are [Q; K], the query crops and then their key crops.

    clean: (2B, C, *patch), what is reconstructed. taught: the same, what the teacher sees. masked: the same,
    what the student sees, 0 where hidden. hidden: (2B, 1, *patch) bool.
    """

    clean: Tensor
    taught: Tensor
    masked: Tensor
    hidden: Tensor


class Told(NamedTuple):
    """What a network says of [Q; K]: its head's logits, and its finest maps (2B, K, *patch)."""

    logits: HeadOutput
    finest: Tensor


class Alice(Method):
    """Alice (Jiang et al., ICCV 2023; arXiv 2302.05615): anatomical invariance and semantic alignment.

    For a random place of volume A, a frozen anatomical embedding finds the same place of the body in another
    patient's volume B (see `AnatomyMiner`); Q and K are the crops around them. A student sees both with
    columns hidden, a teacher, its moving average, sees them whole. With l the centred and sharpened
    cross-entropy of self-distillation (`tacit.losses.distillation`; no negatives) and the cross-attention X
    of CASA (conditional anatomical semantic, or in the abstract feature, alignment):

        L_inter = 1/2 [ l(cls_t Q, cls_s K) + l(cls_t K, cls_s Q) ]
        L_intra = 1/2 [ l(T Q, S Q) + l(T K, S K) ],   S = X(enc_s, dec_s),  T = X(enc_s, dec_t), no gradient
        L_rec   = 1/2 mean (rec - [Q; K])^2            over all voxels
        L       = L_inter + L_intra + 10 L_rec

    cls is the mean of the bottleneck's map, enc its tokens, dec those of the first decoder stage, all through
    one head; rec is a 1x1x1 convolution of the finest maps. CASA's weights learn through S only.

    The paper's network is a shifted-window transformer shaped like a U-Net (for crops of 64^3: bottleneck
    384 x 4^3, first decoder stage 192 x 8^3); here any encoder that gives maps will do. We could read
    abstract, figures and released code, not the paper's text; at each argument stands what follows the code,
    the figures or our choice. In the code the last step's volume is the memory; here the memory of a sample
    is drawn again from all other volumes, which has the same distribution over shuffled passes and lets a run
    be resumed exactly. The teacher has no dropout (our choice); CASA's is on for T as well, as in the code.

    Args:
        encoder: what learns; gives maps from the bottleneck to full resolution.
        miner: anatomy is the paper's; random and same are baselines: any place of another volume, and two
            places of the same one.
        memory: other volumes among which the best match is sought; the released code has 1.
        threshold: matches at or below this cosine are drawn again, 101 times at most.
        miner_steps: how long the anatomical embedding learns, before the first step.
        miner_dims: of its vectors; the original has 128.
        miner_spacing: mm of the isotropic grid for matching; 0 leaves volumes as they are.
        miner_coarse: map, or global for one coarse vector a volume, where a volume shows one organ.
        miner_seed: of its learning, which is the same in every run.
        inside: whether crops that reach out of the volume are moved into it; in the code they are padded.
        prototypes: P, of both outputs.
        hidden: width of the head's perceptron.
        bottleneck: length of the vector that meets the prototypes.
        shared_last: whether pooled features and tokens share their last layer. (In the released code the
            student's are two and the teacher's one; the teacher's then follows only one of them.)
        use_casa: false compares the encoder's tokens directly (an ablation).
        teacher_source: of CASA's keys and values in T; decoder as in the code, encoder as in the figure.
        casa_ema: whether T has moving averages of CASA's weights (but for the query's projection), as in the
            figure; in the code it has the same weights.
        dropout: of CASA.
        inter: weight of L_inter.
        intra: weight of L_intra.
        reconstruction: weight of L_rec, which has the factor 1/2 besides.
        masked_only: whether only hidden voxels are reconstructed; in the code all are.
        mask_ratio: share of the blocks that is hidden.
        mask_block: side of a block in voxels; divides the patch.
        mask_shape: column hides whole columns along the third axis, as in the code; cube hides blocks.
        student_temperature: of the student's softmax.
        teacher_temperature: of the teacher's, after its warm-up. 0.01 is for 512 prototypes.
        warm_teacher_temperature: where it begins; it rises linearly.
        warm_epochs: how long.
        centre_momentum: of both centres.
        momentum: of the teacher at first; rises to 1 as a cosine.
        augment: rotate_noise turns both crops by up to 15 degrees in the first two axes and adds noise of
            variance 0.01, again for each network (the released code computes this and does not use it).
    """

    slug = "alice"
    title = "The same place in another patient is the positive"
    paper = "arXiv 2302.05615"

    modality = "volume"
    default_encoder = "tacit/unet3d"
    recipe = Recipe(
        optimizer="adamw",
        lr=0.05,
        lr_scaling="linear",
        weight_decay=0.04,
        batch_size=8,
        epochs=1000,
        warmup=0.05,
        clip=3.0,
        source="the released code's defaults: AdamW, lr 0.05 x batch / 256 (its README passes 5e-5, which is "
        "below its own least rate), 50 of 1000 epochs of warm-up, cosine; here to 0 instead of 1e-4, with a "
        "weight decay of 0.04 instead of 0.04 to 0.4, and the norm of the whole gradient clipped at 3, not "
        "that of each tensor of the student",
    )

    def __init__(
        self,
        encoder: nn.Module,
        *,
        miner: Miner = "anatomy",
        memory: int = 1,
        threshold: float = 0.7,
        miner_steps: int = 1000,
        miner_dims: int = 32,
        miner_spacing: float = 2.0,
        miner_coarse: Coarse = "map",
        miner_seed: int = 0,
        inside: bool = False,
        prototypes: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        shared_last: bool = False,
        use_casa: bool = True,
        teacher_source: TeacherSource = "decoder",
        casa_ema: bool = False,
        dropout: float = 0.1,
        inter: float = 1.0,
        intra: float = 1.0,
        reconstruction: float = 10.0,
        masked_only: bool = False,
        mask_ratio: float = 0.75,
        mask_block: int = 16,
        mask_shape: MaskShape = "column",
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.01,
        warm_teacher_temperature: float = 0.008,
        warm_epochs: int = 30,
        centre_momentum: float = 0.9,
        momentum: float = 0.996,
        augment: Literal["rotate_noise"] | None = None,
    ) -> None:
        super().__init__(encoder)
        _check(miner=(miner, Miner), teacher_source=(teacher_source, TeacherSource))
        if memory < 1 or miner_steps < 0:
            raise UsageError(
                "alice needs a memory of at least 1 and miner_steps of at least 0, not "
                f"{memory} and {miner_steps}"
            )
        if not (0 <= momentum <= 1 and 0 <= centre_momentum <= 1):
            raise UsageError(f"momenta must lie in [0, 1], not {momentum} and {centre_momentum}")
        self.memory, self.inside = memory, inside
        self.teacher_source = teacher_source
        self.weights = {"inter": inter, "intra": intra, "reconstruction": reconstruction}
        self.masked_only = masked_only
        self.mask: tuple[int, float, MaskShape] = (mask_block, mask_ratio, mask_shape)
        self.student_temperature = student_temperature
        self.teacher_temperatures = (warm_teacher_temperature, teacher_temperature, warm_epochs)
        teacher_temperature_at(0, *self.teacher_temperatures)
        self.centre_momentum, self.momentum, self.augment = centre_momentum, momentum, augment

        widths = pyramid_of(encoder).pyramid_features
        channels = card_of(encoder).channels
        decodes = widths[1] if use_casa else 0
        self.head = DistillationHead(
            widths[0], widths[0], decodes, prototypes, hidden, bottleneck, shared_last
        )
        self.casa = CASA(prototypes, hidden=4 * prototypes, dropout=dropout) if use_casa else None
        self.reconstruct = nn.Conv3d(widths[-1], channels, 1)
        self.teacher = _without_dropout(frozen_copy(encoder))
        self.teacher_head = frozen_copy(self.head)
        self.teacher_casa = frozen_copy(self.casa) if self.casa is not None and casa_ema else None
        self.register_buffer("centre_cls", torch.zeros(1, prototypes))
        self.register_buffer("centre_token", torch.zeros(1, 1, prototypes))
        self._seen: list[tuple[Tensor, Tensor]] = []

        matcher = AnatomyMatcher(channels, miner_dims, coarse=miner_coarse)
        self.miner: ViewMiner
        if miner == "anatomy":
            self.miner = AnatomyMiner(matcher, miner_steps, miner_seed, miner_spacing, threshold=threshold)
        else:
            self.miner = SameVolumeMiner() if miner == "same" else RandomPairMiner()
        self.source: Source | None = None

    centre_cls: Tensor
    centre_token: Tensor

    # The miner works in the loader's processes, on the CPU, wherever the rest of the method is; so its
    # weights are no parameters, and are saved beside them.
    def get_extra_state(self) -> Tensor:
        """The miner's weights, (n,) float32."""
        return self.miner.weights

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse."""
        self.miner.weights = state

    def prepare(self, source: Source) -> None:
        """The miner will look for places in this source's volumes."""
        self.source = source

    def begin(self, source: Source, *, progress: bool) -> None:
        """The miner learns to find places."""
        self.miner.learn(source, progress=progress)

    @torch.no_grad()
    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The query crop; in `extra` the key crop, `key`, where it is from, and how good the match is.

        key: (C, *patch). key_index: position of the key's volume in the source, as samples have it. score:
        float32. query_centre, key_centre: (3,) int64 voxels.
        """
        query = Candidate(sample.index, scan_of(sample))
        memory = self._others(sample, rng)
        match = self.miner.mine(query, memory, rng)
        other = query if match.key < 0 else memory[match.key]
        patch = VolumeForm.of(card_of(self.encoder).form).patch
        extra = {
            "key": crop(other.volume, match.found, patch, inside=self.inside),
            "key_index": torch.tensor(other.index),
            "score": torch.tensor(match.score, dtype=torch.float32),
            "query_centre": torch.tensor(match.query),
            "key_centre": torch.tensor(match.found),
        }
        data = crop(query.volume, match.query, patch, inside=self.inside)
        return Sample(data, sample.index, sample.label, sample.name, extra=extra)

    def _others(self, sample: Sample, rng: np.random.Generator) -> list[Candidate]:
        """The memory: other volumes; the sample's own if there is no other."""
        if self.source is None:
            raise UsageError("alice: call prepare(source) before samples are cut")
        drawn = rng.choice(len(self.source), min(self.memory + 1, len(self.source)), replace=False)
        found = [self.source[int(i)] for i in drawn]
        others = [Candidate(s.index, scan_of(s)) for s in found if s.index != sample.index]
        return others[: self.memory] or [Candidate(sample.index, scan_of(sample))]

    def views(self, batch: Batch, rng: Rng, step: Step) -> Views:
        """Both crops, and two masks that do not know of each other."""
        samples = batch.unlabelled
        if "key" not in samples.extra:
            raise UsageError("alice: the batch has no key crops; its samples must come through Alice.cut")
        clean = torch.cat([samples.data, samples.extra["key"]]).float()
        # numbers of their own for the keys, so that both crops of a sample get different draws
        index = torch.cat([samples.index, -1 - samples.index])
        if "score" in samples.extra:
            self.note("score", samples.extra["score"].float().mean())
        taught = seen = clean
        if self.augment:
            clean = _turned(clean, rng("angle"), index)
            taught, seen = (_noisy(clean, rng("noise", name), index) for name in ("teacher", "student"))
        block, ratio, shape = self.mask
        half = len(batch)
        hidden = torch.cat(
            [
                block_mask(half, clean.shape[2:], block, ratio, rng("mask", name), samples.index, shape=shape)
                for name in ("query", "key")
            ]
        ).to(clean.device)
        return Views(clean, taught, seen.masked_fill(hidden, 0.0), hidden)

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """The three terms, weighted."""
        student = _run(self.encoder, self.head, views.masked, hold_last=step.epoch == 0)
        with torch.no_grad():
            teacher = _run(self.teacher, self.teacher_head, views.taught)
        told, wanted = self._aligned(student.logits, teacher.logits)
        self._seen.append((teacher.logits.cls, wanted))
        temperatures = {
            "teacher_temperature": teacher_temperature_at(step.epoch, *self.teacher_temperatures),
            "student_temperature": self.student_temperature,
        }
        terms = {
            "inter": inter_patient(teacher.logits.cls, student.logits.cls, self.centre_cls, **temperatures),
            "intra": intra(wanted, told, self.centre_token, **temperatures),
            "reconstruction": self._reconstruction(self.reconstruct(student.finest), views),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}

    def _aligned(self, student: HeadOutput, teacher: HeadOutput) -> tuple[Tensor, Tensor]:
        """S and T, (2B, N, P); T has no gradient."""
        if self.casa is None:
            return student.enc, teacher.enc
        assert student.dec is not None
        assert teacher.dec is not None
        with torch.no_grad():
            of_teacher = teacher.enc if self.teacher_source == "encoder" else teacher.dec
            layer = self.casa if self.teacher_casa is None else cast(CASA, self.teacher_casa)
            wanted = layer(student.enc, of_teacher, projected=self.casa.query(student.enc))
        return self.casa(student.enc, student.dec), wanted

    def _reconstruction(self, found: Tensor, views: Views) -> Tensor:
        """Half the mean squared error, of all voxels or of the hidden ones."""
        if not self.masked_only:
            return F.mse_loss(found.float(), views.clean) / 2
        hidden = views.hidden.expand_as(found)
        squares = (found.float() - views.clean).square() * hidden
        return squares.sum() / hidden.sum().clamp_min(1) / 2

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """Teacher and centres follow."""
        m = teacher_momentum(self.momentum, step)
        follow(self.teacher, self.encoder, m)
        follow(self.teacher_head, self.head, m)
        if self.teacher_casa is not None and self.casa is not None:
            follow(self.teacher_casa, self.casa, m)
        if self._seen:
            cls, tokens = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
            self._seen.clear()
            self.centre_cls.copy_(update_centre(self.centre_cls, cls, self.centre_momentum))
            self.centre_token.copy_(update_centre(self.centre_token, tokens, self.centre_momentum))


def teacher_momentum(start: float, step: Step) -> float:
    """1 - (1 - start) (1 + cos(pi t)) / 2 for t = step / total: from `start` up to 1."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * step.index / step.total)) / 2


def _without_dropout(module: nn.Module) -> nn.Module:
    for part in module.modules():
        for name in ("p", "drop_prob"):  # of torch's dropouts, and of stochastic depth in timm and MONAI
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    return module


def _run(encoder: nn.Module, head: nn.Module, x: Tensor, *, hold_last: bool = False) -> Told:
    bottleneck, decoded, *finer = pyramid_of(encoder).forward_pyramid(x)
    enc = bottleneck.flatten(2).transpose(1, 2)
    wants = cast(DistillationHead, head).adapt_dec is not None
    dec = decoded.flatten(2).transpose(1, 2) if wants else None
    logits = head(enc.mean(1), enc, dec, hold_last=hold_last)
    return Told(logits, finer[-1] if finer else decoded)


def _turned(x: Tensor, rng: Rng, index: Tensor) -> Tensor:
    """In the plane of the first two axes."""
    degrees = F.pad(between(rng.uniform(index, 1), (-DEGREES, DEGREES)), (2, 0))
    return turn(x, degrees, torch.ones_like(degrees))


def _noisy(x: Tensor, rng: Rng, index: Tensor) -> Tensor:
    return x + math.sqrt(VARIANCE) * pixel_noise(index, x[0].numel(), rng).view_as(x)


def _check(**words: tuple[str, Any]) -> None:
    for name, (word, kind) in words.items():
        allowed: Sequence[str] = get_args(kind)
        if word not in allowed:
            raise unknown(name, str(word), allowed)
