"""Self-distillation: a student says what a teacher says, which is centred and sharpened; no negatives.

With teacher logits z_t, student logits z_s over P prototypes, a centre c and temperatures tau_t < tau_s:

    p(z_t) = softmax((z_t - c) / tau_t)                      no gradient
    l(z_t, z_s) = -sum_k p(z_t)_k log softmax(z_s / tau_s)_k     in nats

The loss of DINO (Caron et al., 2021, arXiv 2104.14294) and iBOT (Zhou et al., 2022, arXiv 2111.07832), which
Alice uses between patients and within a crop (Jiang et al., 2023, arXiv 2302.05615; from its code). What
keeps it from answering the same to everything is the centre, a moving average of the teacher's logits,
together with the low temperature.

Shared by all functions: half precision is computed in float32, also under autocast; float64 stays float64.
Means over samples are means over this process's samples; averaged over processes they are those of the whole
batch, where every process has as many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.losses.consistency import wide
from tacit.losses.gather import gather


def distillation(
    teacher: Tensor,
    student: Tensor,
    centre: Tensor,
    *,
    teacher_temperature: float = 0.01,
    student_temperature: float = 0.1,
) -> Tensor:
    """l(z_t, z_s) of each pair of rows, see the module's page.

    teacher, student: (..., P) logits; the teacher's get no gradient. centre: broadcasts against them, such
        as (1, P).
    Returns (...), at least 0; ln P for a student that answers all prototypes alike.

    Raises:
        UsageError: shapes differ, or a temperature is not above 0.
    """
    if teacher.shape != student.shape or not teacher.ndim:
        raise UsageError(
            f"distillation: teacher and student must have one shape (..., P), got {tuple(teacher.shape)} and "
            f"{tuple(student.shape)}"
        )
    for name, value in (("teacher", teacher_temperature), ("student", student_temperature)):
        if not value > 0:
            raise UsageError(f"distillation: the {name}'s temperature must be above 0, got {value}")
    with torch.no_grad():
        wanted = ((wide(teacher) - wide(centre)) / teacher_temperature).softmax(-1)
    said = (wide(student) / student_temperature).log_softmax(-1)
    return -(wanted * said).sum(-1)


def inter_patient(
    teacher: Tensor,
    student: Tensor,
    centre: Tensor,
    *,
    teacher_temperature: float = 0.01,
    student_temperature: float = 0.1,
) -> Tensor:
    """Alice's global term: each crop of a pair is taught by the teacher's view of the *other* patient's crop.

    1/2 [ l(z_t of Q, z_s of K) + l(z_t of K, z_s of Q) ], mean over pairs (Jiang et al., 2023).

    teacher, student: (2B, P) logits of [Q; K]: B query crops, then their B key crops in the same order.
    centre: (1, P) or (P,).
    Returns a scalar of at least 0, in nats.

    Raises:
        UsageError: as `distillation`, or not an even number of rows above 0.
    """
    check_pairs(teacher)
    return distillation(
        wide(teacher).roll(len(teacher) // 2, 0),
        student,
        centre,
        teacher_temperature=teacher_temperature,
        student_temperature=student_temperature,
    ).mean()


def intra(
    teacher: Tensor,
    student: Tensor,
    centre: Tensor,
    *,
    teacher_temperature: float = 0.01,
    student_temperature: float = 0.1,
) -> Tensor:
    """Alice's dense term: each token of a masked crop is taught by the teacher's same token of that crop.

    1/2 [ mean over tokens of l(T of Q, S of Q) + the same for K ], mean over pairs (Jiang et al., 2023).

    teacher, student: (2B, N, P) logits of [Q; K], N tokens each. centre: (1, 1, P) or (P,).
    Returns a scalar of at least 0, in nats.

    Raises:
        UsageError: as `distillation`, or not an even number of crops above 0.
    """
    check_pairs(teacher)
    return distillation(
        teacher,
        student,
        centre,
        teacher_temperature=teacher_temperature,
        student_temperature=student_temperature,
    ).mean()


def check_pairs(stacked: Tensor) -> None:
    """Raise UsageError unless the rows are an even number above 0: [Q; K]."""
    if stacked.ndim < 2 or len(stacked) % 2 or not stacked.numel():
        raise UsageError(
            "distillation between pairs takes (2B, ..., P) with B at least 1, query crops first, got "
            f"{tuple(stacked.shape)}"
        )


@torch.no_grad()
def update_centre(centre: Tensor, teacher: Tensor, momentum: float = 0.9) -> Tensor:
    """The next centre: momentum * centre + (1 - momentum) * mean of the teacher's logits over everything.

    The mean runs over all samples (and tokens) of all processes, each of which must make the call with as
    many samples.

    centre: (..., P), returned in this shape. teacher: (..., P) logits.
    Returns a new tensor of the centre's type.
    """
    mean = wide(teacher).flatten(0, -2).mean(0)
    mean = gather(mean[None]).mean(0)
    return momentum * centre + (1 - momentum) * mean.to(centre.dtype)


def teacher_temperature_at(epoch: int, start: float, end: float, epochs: int) -> float:
    """The teacher's temperature in an epoch: from `start` in epoch 0 linear to `end` in epoch `epochs` - 1.

    Alice's code: 0.008 to 0.01 in 30 epochs, for both terms.

    Raises:
        UsageError: a temperature is not above 0, or epochs is below 0.
    """
    if not (start > 0 and end > 0 and epochs >= 0):
        raise UsageError(
            f"the teacher's temperature goes from {start} to {end} in {epochs} epochs: all must be above 0"
        )
    risen = min(1.0, epoch / (epochs - 1)) if epochs > 1 else 1.0
    return start + (end - start) * risen
