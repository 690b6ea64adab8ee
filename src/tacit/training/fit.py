"""`tacit.fit`: from data to a run folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tacit.data.form import form_class
from tacit.data.source import Source
from tacit.data.volume.options import three
from tacit.data.volume.windows import Window
from tacit.encoders.card import card_of
from tacit.errors import TacitError
from tacit.evaluation.subject import OnBadFile, pick_device
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe, Scaling, Schedule
from tacit.methods.registry import method_class
from tacit.rng import Rng, seeded
from tacit.tasks.online import OnlineProbe
from tacit.tasks.registry import task_of
from tacit.training.checkpoint import Checkpoint
from tacit.training.finishing import finish
from tacit.training.ingredients import (
    Precision,
    build_method,
    check_arguments,
    check_fit,
    images_of,
    open_data,
    open_images,
    recipe_for,
)
from tacit.training.keeper import SAVE_EVERY
from tacit.training.laptop import Preset, check_preset, laptop
from tacit.training.learner import Learner
from tacit.training.loader import Plan
from tacit.training.pretraining import check_before, check_pretraining, learn_first
from tacit.training.progress import ProgressBar
from tacit.training.proposals import propose
from tacit.training.pulse import Pulse
from tacit.training.resources import check_disk, explaining_memory, state_bytes
from tacit.training.resuming import check_same_data, claim_folder, restore
from tacit.training.run import Run, is_main_process
from tacit.training.settings import describe, plain, resumed_choices, resumed_options
from tacit.training.teaching import Teaching, check_batch, refuse_label_options, teach
from tacit.training.trainer import make_trainer
from tacit.training.views import From, check_views, options_for, say
from tacit.training.watch import OnCollapse, Watch


def fit(
    method: str,
    data: str | os.PathLike[str] | Source,
    *,
    out: str | os.PathLike[str] | None = None,
    encoder: str | nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
    images: str | None = None,
    labels: str | None = None,
    masks: str | None = None,
    labelled: int | None = None,
    labels_per_class: int | None = None,
    label_fraction: float | None = None,
    held_out: float | None = None,
    groups: str | None = None,
    views: str | None = None,
    recipe: From = "default",
    preset: Preset | None = None,
    pretrain: str | None = None,
    pretrain_epochs: int | None = None,
    pretrain_batch_size: int | None = None,
    size: int | None = None,
    patch: str | tuple[int, int, int] | None = None,
    window: str | None = None,
    spacing: str | tuple[float, float, float] | None = None,
    channels: int | None = None,
    small_input: bool | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str | None = None,
    weight_decay: float | None = None,
    momentum: float | None = None,
    lr_scaling: Scaling | None = None,
    schedule: Schedule | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    mu: float | None = None,
    accumulate: int = 1,
    precision: Precision = "auto",
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    seed: int = 0,
    resume: bool = False,
    save_every: float = SAVE_EVERY,
    on_collapse: OnCollapse = "stop",
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    quiet: bool = False,
) -> Run:
    """Learn an encoder from unlabelled data, or a classifier from few labels, and write a run folder.

    What is not given follows the method's recipe, which `tacit methods METHOD` shows. Labels, if the
    data have some, only serve the online probe, unless the method is semi-supervised: then it learns from
    the labels of the budget, and from all images of the training split without labels.

    Args:
        method: slug of the method, such as dcl; `tacit methods` lists them.
        data: a folder of images (with or without class folders), a MedMNIST-style .npz, hf:NAME, or
            digits or mnist5k, which come inside pip packages.
        out: the run folder; default runs/METHOD-DATA.
        encoder: spec string (timm/resnet50, tacit/vnet, run:runs/photos, ...) or a module of your own (see
            attach_card); default: the method's.
        options: the method's own arguments, such as temperature.
        images: images that joint-image-volume learns from beside volumes.
        labels: CSV of file names and labels, or "none" to ignore class folders.
        masks: folder with the volumes' masks, where they do not lie beside them.
        labelled: volumes with masks that a method for masks learns from; default: all.
        labels_per_class: labels of each class that a semi-supervised method learns from; default: all.
        label_fraction: the same as a share of each class's labels.
        held_out: held-out labels per label that is learned from, for validation and calibration; default
            0.25. Data with a validation split are validated on that instead.
        groups: CSV of file names and groups, such as patients, or re:PATTERN for the names; held-out images
            are of other groups than those that are learned from.
        views: how views of images are made: photos, greys, radiographs, digits or microscopy; default: by
            what the pictures are like, which is said at the start. Options of the method change single
            strengths.
        recipe: whether a method's views, weights and thresholds are chosen for runs of hundreds to thousands
            of steps on ordinary data (default), or are those of its paper (paper). The optimiser is the
            paper's in both; averages span no more than 5 % of a run in both.
        preset: laptop takes an encoder, batch and length with which images are worth learning from on two
            cores without a GPU, where these are not given.
        pretrain: a self-supervised method that learns the encoder first, with its own recipe, in a run
            folder of its own beside `out`.
        pretrain_epochs: of that run; default: its recipe's.
        pretrain_batch_size: of that run; default: its recipe's.
        size: side in pixels of what the encoder sees; default: the encoder's own where it is fixed,
            else that of the images, at most 224.
        patch: sides X,Y,Z in voxels of what the encoder sees of a volume; default: the median volume's, to
            multiples of 16, at most 96.
        window: intensities of volumes that become 0 and 1: minmax or percentile (0.5 and 99.5) of each
            volume, or LOW,HIGH such as -125,225; default minmax.
        spacing: voxel sides X,Y,Z in mm to which volumes are resampled; default: as they are.
        channels: channels of the images; default: 1 if all are grey, else 3.
        small_input: 3x3 stem without pooling; default: for sizes up to 64 where the encoder has one.
        epochs: passes over the data.
        batch_size: samples per optimiser step, over all devices.
        lr: base learning rate, before lr_scaling.
        optimizer: any that timm knows.
        weight_decay: not applied to biases and normalisation.
        momentum: of the optimiser.
        lr_scaling: linear (lr x batch / 256), sqrt (lr x sqrt(batch)) or none.
        schedule: cosine, cosine 7/16 or constant, after the warm-up.
        warmup: share of the steps in which the rate rises from 0.
        clip: largest norm of the gradient.
        mu: unlabelled images per labelled one in a step; batch_size counts the unlabelled ones.
        accumulate: parts in which a batch is computed, to save memory. A loss that compares the samples
            of one part with each other, or divides by sums over them, then learns something else; a note
            says so.
        precision: auto is bf16 where the device is good at it, else 32.
        device: auto, cpu, cuda, mps.
        devices: how many of them.
        workers: loader processes; default 0 on the CPU, up to 4 on a GPU.
        seed: of every random choice.
        resume: go on with the run in `out` if one was begun there.
        save_every: seconds between checkpoints at most; a killed run loses no more than that. 0 saves
            after every step. Epochs end with a checkpoint, too, if the last one is 20 seconds old.
        on_collapse: whether a run whose outputs become the same for all images, or whose gradients or
            parameters explode, stops with the last good checkpoint or goes on with a warning. A loss
            that is not a number always stops.
        on_bad_file: whether the first unusable file stops, or is skipped, counted and listed.
        cache: where decoded images are kept; default TACIT_CACHE or the user's cache folder.
        quiet: show no progress.

    Returns:
        The run; `run.encoder()` loads what was learned.

    Raises:
        UsageError: a wrong name, type or combination, or a run that exists.
        TacitError: data or disk fail. Checkpoints already written stay.
    """
    arguments = dict(locals())
    learns = method_class(method)
    arguments["encoder"] = encoder or (learns.default_encoder if preset is None else "tacit/convnet")
    check_arguments(arguments)
    refuse_label_options(arguments, learns)
    check_pretraining(arguments, learns)
    check_views(arguments, learns)
    check_preset(arguments, learns)
    for name in ("patch", "spacing"):  # in one spelling, for run.yaml
        if (sides := three(name, arguments[name])) is not None:
            arguments[name] = ",".join(f"{side:g}" for side in sides)
    if window is not None:
        arguments["window"] = str(Window.parse(window))
    run = Run(Path(out) if out is not None else default_folder(method, data))
    given = dict(options or {})
    if resume and run.exists:
        given = resumed_options(run, given)
        arguments |= resumed_choices(run, {**arguments, "encoder": encoder})
    arguments["options"], _ = options_for(learns, arguments, given)
    checkpoint = claim_folder(run, arguments, resume)
    if run.finished and resume:
        return run
    arguments["quiet"] = quiet or not is_main_process()
    if preset is not None:
        kept = arguments["encoder"] if resume else encoder
        arguments |= _of_preset(learns, {**arguments, "encoder": kept})
    used, asked = recipe_for(learns, arguments), arguments["encoder"]
    if pretrain is not None:
        check_before(arguments, learns, used)
        arguments["encoder"] = learn_first(fit, arguments, run)
    whole, side = open_data(arguments)
    check_fit(learns, method, whole)
    arguments["options"], choice = options_for(learns, arguments, given, whole, side)
    if choice is not None:
        arguments["views"] = choice.name
        _say(arguments, say(choice, resumed=checkpoint is not None))
    settings = describe({**arguments, "encoder": asked})
    train = whole.splits.get("train", np.arange(len(whole)))
    source = whole.subset(train) if "train" in whole.splits else whole
    beside = open_images(arguments, learns, whole)
    teaching = teach(arguments, used, task_of(learns.learns), whole, train) if learns.learns else None
    if teaching is not None:
        source = teaching.pool
    if checkpoint is not None:
        check_same_data(run, source, used, teaching, beside)
    plan = Plan(len(source), used.batch_size, used.epochs, accumulate, devices)
    rng = Rng.of(seed)
    with seeded(rng("fit")):
        built = build_method(learns, arguments, source, side)
        built.images = beside
        built.train().prepare(source)
        if form_class(learns.modality).channels_last:
            built.to(memory_format=torch.channels_last)
        probe = _probe(whole, train, teaching, built, rng("online"))
        floors = _floors(teaching, built, probe, pick_device(device)) if is_main_process() else {}
        if teaching is not None and (few := check_batch(built, teaching.labelled)):
            _say(arguments, [f"warning: {few}"])
        if checkpoint is None and is_main_process():
            _say(arguments, propose(arguments, built, teaching))
        if checkpoint is not None:
            restore(built, checkpoint, run)
        if is_main_process():
            check_disk(run.folder, state_bytes(built))
            run.sweep()
            run.write_settings(settings, _record(source, used, built, teaching, beside))
            run.write_skipped(source.skipped)
        if checkpoint is None:
            built.begin(source, progress=not arguments["quiet"])
        learner = Learner(
            built,
            used,
            plan,
            source,
            rng,
            start=checkpoint.step if checkpoint else 0,
            optimizer_state=checkpoint.optimizer if checkpoint else None,
            pulse=Pulse.resumed(checkpoint.guard) if checkpoint else None,
            workers=_workers(workers, device),
            labelled=teaching.labelled if teaching else None,
            images=images_of(built, beside, used),
        )
        _train(learner, probe, run, arguments, checkpoint)
    if is_main_process():
        summary = finish(learner, run, probe, teaching, floors, pick_device(device))
        _say(arguments, summary.lines())
    return run


def _of_preset(learns: type[Method], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset says where nothing was asked for."""
    whole, side = open_data({**arguments, "encoder": arguments["encoder"] or "tacit/convnet", "quiet": True})
    samples = len(whole.splits.get("train", np.arange(len(whole))))
    values = laptop(learns, samples, side)
    return {name: value for name, value in values.items() if arguments[name] is None}


def default_folder(method: str, data: str | os.PathLike[str] | Source) -> Path:
    """runs/METHOD-DATA, in letters that every system takes."""
    name = "data" if isinstance(data, Source) else os.fspath(data).removeprefix("hf:")
    name = Path(name).resolve().name.removesuffix(".npz")
    return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{method}-{name}")


def _probe(
    whole: Source, train: np.ndarray, teaching: Teaching | None, method: Method, rng: Rng
) -> OnlineProbe:
    if teaching is None:
        return OnlineProbe(whole, train, rng)
    parts = {"learned": teaching.learned, "held_out": teaching.held_out}
    return teaching.task.watch(teaching.whole, train, rng, method, **parts)


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


def _say(arguments: Mapping[str, Any], lines: Sequence[str]) -> None:
    if not arguments["quiet"]:
        for line in lines:
            print(line, file=sys.stderr)


def _record(
    source: Source, recipe: Recipe, method: Method, teaching: Teaching | None, beside: Source | None
) -> dict[str, Any]:
    """What the run ran on, beside its arguments."""
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


def _workers(workers: int | None, device: str) -> int:
    if workers is not None:
        return workers
    return 0 if pick_device(device).type == "cpu" else min(4, max(1, (os.cpu_count() or 2) - 1))


def _train(
    learner: Learner,
    probe: OnlineProbe,
    run: Run,
    arguments: Mapping[str, Any],
    checkpoint: Checkpoint | None,
) -> None:
    if learner.done:
        return
    if not arguments["quiet"]:
        _note_parts(learner, arguments["method"])
    with ProgressBar(learner.plan.total, learner.start, quiet=arguments["quiet"]) as bar:
        watch = Watch(
            run,
            learner,
            probe,
            bar,
            resumed=checkpoint,
            on_collapse=arguments["on_collapse"],
            save_every=arguments["save_every"],
        )
        trainer = make_trainer(learner, watch, arguments)
        device, full = pick_device(arguments["device"]), trainer.precision == "32-true"
        with watch.signals(), explaining_memory(learner.method, learner.plan, device, full=full):
            trainer.fit(learner)
    if not learner.done:
        if not is_main_process():
            raise SystemExit(0)  # the main process says why; another code would make Lightning end it before
        raise TacitError(f"the run stopped early; go on with: tacit fit --resume --out {run.quoted}")


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
