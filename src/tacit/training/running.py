"""One run, from what was asked for to the files of its folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.data.form import form_class
from tacit.data.memory import Held
from tacit.data.open import spelled
from tacit.data.skipped import skipped_line
from tacit.data.source import Source
from tacit.data.understood import understood
from tacit.encoders.card import card_of
from tacit.errors import TacitError
from tacit.evaluation.batch_statistics import tracking_layers
from tacit.evaluation.subject import pick_device
from tacit.locks import owning
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.methods.registry import method_class
from tacit.rng import Rng, seeded
from tacit.tasks.online import OnlineProbe
from tacit.tasks.registry import task_of
from tacit.training.checkpoint import Checkpoint
from tacit.training.finishing import finish
from tacit.training.ingredients import (
    build_method,
    check_fit,
    images_of,
    kind_for,
    open_data,
    open_images,
    recipe_for,
)
from tacit.training.laptop import check_preset, laptop
from tacit.training.learner import Learner
from tacit.training.loader import Plan
from tacit.training.options import Machine, Options
from tacit.training.pretraining import check_before, check_pretraining, learn_first
from tacit.training.progress import ProgressBar
from tacit.training.proposals import propose
from tacit.training.pulse import Pulse
from tacit.training.resources import check_disk, explaining_memory, is_out_of_memory, state_bytes
from tacit.training.resuming import check_same_data, claim_folder, restore
from tacit.training.run import Run, is_main_process
from tacit.training.settings import describe, plain, resumed_choices, resumed_options
from tacit.training.teaching import Teaching, check_batch, refuse_label_options, teach
from tacit.training.trainer import make_trainer
from tacit.training.views import check_views, own_options, say
from tacit.training.watch import Watch


@dataclass(slots=True)
class Job:
    """A run that is about to learn.

    options: as they were asked for, with what the run has chosen by itself. given: options of the method
    that were named. checkpoint: to go on from.
    """

    learns: type[Method]
    kind: str
    options: Options
    given: dict[str, Any]
    run: Run
    checkpoint: Checkpoint | None = None

    def say(self, lines: Sequence[str]) -> None:
        """To the user, unless the run is quiet."""
        if not self.options.care.quiet:
            for line in lines:
                print(line, file=sys.stderr)


@dataclass(slots=True)
class Data:
    """What a job learns from.

    whole: all splits. train: positions that may be learned from. source: what is learned from. side: in
    pixels of what the encoder sees. beside: a second source. teaching: of a method that learns labels. said:
    what a user should know of them.
    """

    whole: Source
    train: np.ndarray
    source: Source
    side: int
    beside: Source | None
    teaching: Teaching | None
    said: list[str]


def run_method(options: Options) -> Run:
    """What `fit` does; see there."""
    job = _job(options)
    if not is_main_process():  # the main process owns the folder for all
        return _run(job, options)
    if job.run.finished and options.care.resume:
        claim_folder(job.run, job.options)
        return job.run
    with owning(job.run.folder):
        return _run(job, options)


def _run(job: Job, options: Options) -> Run:
    """The run, in a folder that nothing else writes to. options: as they were asked for."""
    job.checkpoint = claim_folder(job.run, job.options)
    if job.run.finished and options.care.resume:
        return job.run
    if options.start.preset is not None:
        _take_preset(job, options)
    recipe, encoder = recipe_for(job.learns, job.kind, job.options.changes), job.options.start.encoder
    if options.start.pretrain is not None:
        check_before(job.options, job.learns, recipe)
        job.options = job.options.changed(encoder=learn_first(_again, job.options, job.run))
    data = _opened(job, recipe)
    settings = describe(job.options.changed(encoder=encoder))
    if job.checkpoint is not None:
        check_same_data(job.run, data.source, recipe, data.teaching, data.beside)
    rng, machine = Rng.of(options.machine.seed), options.machine
    device, first = pick_device(machine.device), is_main_process()
    with seeded(rng("fit")):
        method = _built(job, data)
        job.say(data.said)
        probe = _probe(data, method, rng("online"))
        floors = _floors(data.teaching, method, probe, device) if first else {}
        _warn(job, data, method)
        if job.checkpoint is not None:
            restore(method, job.checkpoint, job.run)
        if first:
            check_disk(job.run.folder, state_bytes(method))
            job.run.sweep()
            job.run.write_settings(settings, _record(data, recipe, method))
            job.run.write_skipped(data.whole.skipped)
            if data.whole.skipped:
                job.say([skipped_line(data.whole.skipped, len(data.whole), job.run.folder / "skipped.csv")])
        if job.checkpoint is None:
            method.begin(data.source, progress=not job.options.care.quiet)
        learner = _learner(job, data, method, recipe, rng)
        _train(learner, probe, job)
    if first:
        job.say(finish(learner, job.run, probe, data.teaching, floors, device).lines())
    return job.run


def _again(method: str, data: Any, **words: Any) -> Run:
    """`fit` for the pretraining."""
    return run_method(Options.of({"method": method, "data": data, **words}))


def _job(options: Options) -> Job:
    """What is asked for, checked and completed before any data are opened."""
    learns = method_class(options.method)
    options.check()
    kind = kind_for(learns, options.reading.data)
    form, start, reading = form_class(kind), options.start, options.reading
    named = start.encoder or (learns.encoder_for(kind) if start.preset is None else form.light)
    done = options.changed(encoder=named, **spelled(reading.data, options.seeing.words()))
    refuse_label_options(done, learns)
    check_pretraining(done, kind)
    check_views(options.method, options.viewing, learns)
    check_preset(done, learns)
    out = options.care.out
    run = Run(Path(out) if out is not None else default_folder(options.method, reading.data))
    given = dict(options.own)
    if options.care.resume and run.exists:
        given = resumed_options(run, learns, given)
        done = done.changed(**resumed_choices(run, done.changed(encoder=start.encoder)))
    done = done.with_own(own_options(learns, options.method, done.viewing, given)[0])
    quiet = options.care.quiet or not is_main_process()
    return Job(learns, kind, done.changed(quiet=quiet), given, run)


def _take_preset(job: Job, asked: Options) -> None:
    """What the preset says where nothing was asked for."""
    goes_on = asked.care.resume and job.run.exists  # with the encoder that the run has chosen
    kept = job.options.start.encoder if goes_on else asked.start.encoder
    looks = job.options.changed(encoder=kept or form_class(job.kind).light, quiet=True)
    whole, side = open_data(looks)
    samples = len(whole.training)
    words = {**job.options.words(), "encoder": kept}
    values = {name: v for name, v in laptop(job.learns, samples, side).items() if words[name] is None}
    job.options = job.options.changed(**{"encoder": kept, **values} if kept is None else values)


def _opened(job: Job, recipe: Recipe) -> Data:
    """The data, what is learned from them, and the options of the method that fit them."""
    whole, side = open_data(job.options)
    check_fit(job.learns, job.options.method, whole)
    said = understood(whole)
    own, choice = own_options(job.learns, job.options.method, job.options.viewing, job.given, whole, side)
    job.options = job.options.with_own(own)
    if choice is not None:
        job.options = job.options.changed(views=choice.name)
        said += say(choice, resumed=job.checkpoint is not None)
    train = whole.training
    source = whole.subset(train) if "train" in whole.splits else whole
    beside = open_images(job.options, job.learns, whole)
    teaching = None
    if job.learns.learns is not None:
        teaching = teach(job.options, recipe, task_of(job.learns.learns), whole, train)
        source = teaching.pool
    return Data(whole, train, source, side, beside, teaching, said)


def _built(job: Job, data: Data) -> Method:
    """The method, ready for its first step.

    Raises:
        TacitError: there is too little memory for it.
    """
    try:
        method = build_method(job.learns, job.options, data.source, data.side)
        method.images = data.beside
        method.train().prepare(data.source)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TacitError(
            f"out of memory before the first step: choose a smaller --encoder, or smaller options of "
            f"{job.options.method}, such as its queue"
        ) from error
    if form_class(job.kind).channels_last:
        method.to(memory_format=torch.channels_last)
    return method


def _warn(job: Job, data: Data, method: Method) -> None:
    """What a user should know before waiting for a run."""
    if data.teaching is not None and (few := check_batch(method, data.teaching.labelled)):
        job.say([f"warning: {few}"])
    if differs := _differs(job.options.machine, method):
        job.say([f"note: {differs}"])
    if job.checkpoint is None and is_main_process():
        job.say(propose(job.options, method, data.teaching))


def _differs(machine: Machine, method: Method) -> str:
    """Why several processes do not learn what one would, in words; empty where they do."""
    if machine.processes < 2 or pick_device(machine.device).type == "cuda" or not tracking_layers(method):
        return ""
    return (
        f"each of {machine.processes} processes normalises its own part of a batch (torch synchronises "
        "BatchNorm on CUDA devices only), so that this run differs from that of one process"
    )


def _learner(job: Job, data: Data, method: Method, recipe: Recipe, rng: Rng) -> Learner:
    machine, checkpoint = job.options.machine, job.checkpoint
    return Learner(
        method,
        recipe,
        Plan(len(data.source), recipe.batch_size, recipe.epochs, machine.accumulate, machine.processes),
        data.source,
        rng,
        start=checkpoint.step if checkpoint else 0,
        optimizer_state=checkpoint.optimizer if checkpoint else None,
        pulse=Pulse.resumed(checkpoint.guard) if checkpoint else None,
        workers=_workers(machine),
        labelled=data.teaching.labelled if data.teaching else None,
        images=images_of(method, data.beside, recipe),
    )


def default_folder(method: str, data: str | os.PathLike[str] | Source | Held) -> Path:
    """runs/METHOD-DATA, in letters that every system takes."""
    name = "data" if isinstance(data, Source | Held) else os.fspath(data).removeprefix("hf:")
    name = Path(name).resolve().name.removesuffix(".npz")
    return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{method}-{name}")


def _probe(data: Data, method: Method, rng: Rng) -> OnlineProbe:
    teaching = data.teaching
    if teaching is None:
        return OnlineProbe(data.whole, data.train, rng)
    parts = {"learned": teaching.learned, "held_out": teaching.held_out}
    return teaching.task.watch(teaching.whole, data.train, rng, method, **parts)


def _floors(
    teaching: Teaching | None, method: Method, probe: OnlineProbe, device: torch.device
) -> dict[str, float]:
    """Scores of what needs no learning, on the probe's held-out samples; `method` is as it begins."""
    if not len(probe.queries):
        return {}
    if teaching is None:
        found = probe.floors(method.encoder, device)
    else:
        task, parts = teaching.task, (teaching.learned, probe.queries)
        floors = task.floors(teaching.whole, *parts, method.encoder, device)
        found = {name: measured[task.score] for name, measured in floors.items()}
    method.to("cpu")
    return found


def _record(data: Data, recipe: Recipe, method: Method) -> dict[str, Any]:
    """What the run ran on, beside its arguments."""
    source, beside, teaching = data.source, data.beside, data.teaching
    whole = source.parent if hasattr(source, "parent") else source
    return {
        "data": {
            "fingerprint": source.fingerprint,
            "samples": len(source),
            "labelled": len(source.labelled),
            "skipped": len(whole.skipped),
            "shape": list(source.spec.shape),
            "classes": list(source.spec.classes),
        },
        **({"images": {"fingerprint": beside.fingerprint, "samples": len(beside)}} if beside else {}),
        **({"labels": teaching.record} if teaching else {}),
        "recipe": plain(asdict(recipe)),
        "encoder": plain(card_of(method.encoder).as_json()),
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
    }


def _workers(machine: Machine) -> int:
    if machine.workers is not None:
        return machine.workers
    return 0 if pick_device(machine.device).type == "cpu" else min(4, max(1, (os.cpu_count() or 2) - 1))


def _train(learner: Learner, probe: OnlineProbe, job: Job) -> None:
    if learner.done:
        return
    care, machine = job.options.care, job.options.machine
    if not care.quiet:
        _note_parts(learner, job.options.method)
    plan = learner.plan
    with ProgressBar(job.options.method, plan, learner.start, quiet=care.quiet) as bar:
        watch = Watch(
            job.run,
            learner,
            probe,
            bar,
            resumed=job.checkpoint,
            on_collapse=care.on_collapse,
            save_every=care.save_every,
        )
        trainer = make_trainer(learner, watch, machine)
        device, full = pick_device(machine.device), trainer.precision == "32-true"
        with watch.signals(), explaining_memory(learner.method, plan, device, full=full):
            trainer.fit(learner)
    if not learner.done:
        if not is_main_process():
            raise SystemExit(0)  # the main process says why; another code would make Lightning end it before
        raise TacitError(f"the run stopped early; go on with: {job.run.resuming()}")


def _note_parts(learner: Learner, slug: str) -> None:
    """Say that parts of a batch are not the batch, where that is so."""
    parts = learner.plan.accumulate
    if parts > 1 and not learner.method.accumulates:
        size = learner.plan.batch_size // parts
        print(
            f"note: the loss of {slug} is taken over one part: {parts} parts of {size} are not a batch of "
            f"{learner.plan.batch_size}",
            file=sys.stderr,
        )
