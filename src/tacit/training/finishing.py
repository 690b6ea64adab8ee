"""After the last step: statistics that fit, the better network, and what the run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from tacit.encoders.card import card_of, with_card
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import how_to_load
from tacit.methods.base import Method
from tacit.methods.registry import baseline_of
from tacit.report.page import write_report
from tacit.rng import seeded
from tacit.tasks.online import OnlineProbe
from tacit.training.keeper import resumable
from tacit.training.learner import Learner
from tacit.training.proposals import pretraining_for
from tacit.training.run import Run
from tacit.training.summary import Summary
from tacit.training.teaching import Teaching
from tacit.training.views import takes_views

FEW_STEPS = 1000


def finish(
    learner: Learner,
    run: Run,
    probe: OnlineProbe,
    teaching: Teaching | None,
    floors: Mapping[str, float],
    device: torch.device,
) -> Summary:
    """Choose what is kept, grade it and write it; the encoder's card comes last and says that it is done."""
    method = learner.method.to(device)  # Lightning has put it on the CPU
    with seeded(learner.rng("finish")):
        seen = settle(method, probe, device)
        scores = choose(method, probe, device)
    method.finish(learner.source)
    summary = Summary(
        score=probe.score,
        held_out=len(probe.queries),
        kept=method.kept,
        candidates=scores,
        floors=floors if scores else {},
        statistics=seen.get(method.kept, ""),
        remedies=remedies(learner),
    )
    with resumable(run):
        if teaching is not None:
            predictor = teaching.task.calibrate(method.network, teaching.whole, teaching.held_out)
            predictor.save(run.folder, teaching.task.target)
        if teaching is not None or scores:
            summary.save(run.folder)
        write_report(run.folder)
        card = replace(card_of(method.encoder), learned=True)
        # last: its card says that the run is finished
        save_encoder(with_card(method.encoder, card), run.folder, how_to_load(card))
    return summary


def settle(method: Method, probe: OnlineProbe, device: torch.device) -> dict[str, str]:
    """Running statistics that fit, for each network that could be kept; what to say about them, by name."""
    said: dict[str, str] = {}
    for name in method.candidates:
        method.kept = name
        found = probe.settle(device)
        if found is not None and found[0].apart:
            before, after = found
            cure = (
                f"estimated again on clean pictures ({after})"
                if not after.apart
                else "estimating them again did not help: predictions may be poor"
            )
            said[name] = (
                f"BatchNorm's running statistics did not fit clean training pictures ({before}), because "
                f"training saw other views of them or too few of them; {cure}"
            )
    return said


def choose(method: Method, probe: OnlineProbe, device: torch.device) -> dict[str, float]:
    """Keep the network with the best score on held-out labels, the first of equals; the scores by name.

    Without such labels the first stays, and nothing is returned.
    """
    scores: dict[str, float] = {}
    if not len(probe.queries):
        method.kept = method.candidates[0]
        return scores
    for name in method.candidates:
        method.kept = name
        value = probe.measure(method.evaluated, device).get(probe.score)
        if value is not None:
            scores[name] = value
    # rounded, because equal means of several classes differ in their last bits
    best = max(scores, key=lambda name: round(scores[name], 9), default=method.candidates[0])
    method.kept = best
    return scores


def remedies(learner: Learner) -> tuple[str, ...]:
    """What is most likely to help a run that is below a floor, best first."""
    if learner.method.learns is None:
        return ("--preset laptop", "more --epochs", "other --views", "more images")
    found = []
    card, first = card_of(learner.method.encoder), pretraining_for(learner.method)
    if not card.learned and first:
        found.append(
            f"an encoder that has learned (--pretrain {first}, or --encoder with pretrained weights)"
        )
    if learner.plan.total < FEW_STEPS:
        found.append(f"more steps (--epochs; these were {learner.plan.total})")
    if not learner.method.baseline and (
        slug := baseline_of(type(learner.method), learner.source.spec.modality)
    ):
        found.append(f"the labels alone (tacit fit {slug})")
    views = ("other views (--views)",) if takes_views(type(learner.method)) else ()
    return (*found, "more labels", *views)
