"""`tacit.fit`: from data to a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from tacit.data.memory import Data
from tacit.data.splits import Folders
from tacit.evaluation.subject import OnBadFile
from tacit.methods.recipe import Scaling, Schedule
from tacit.training.keeper import SAVE_EVERY
from tacit.training.options import From, OnCollapse, Options, Precision, Preset
from tacit.training.run import Run
from tacit.training.running import run_method


def fit(
    method: str,
    data: Data,
    *,
    out: str | os.PathLike[str] | None = None,
    encoder: str | nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
    images: str | None = None,
    labels: str | Any | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    masks: str | None = None,
    values: str | None = None,
    column: str | None = None,
    labelled: int | None = None,
    labels_per_class: int | None = None,
    label_fraction: float | None = None,
    held_out: float | None = None,
    groups: str | None = None,
    folders: Folders | None = None,
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
    nodes: int = 1,
    workers: int | None = None,
    seed: int = 0,
    resume: bool = False,
    save_every: float = SAVE_EVERY,
    on_collapse: OnCollapse = "stop",
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    quiet: bool = False,
) -> Run:
    """Learn an encoder from unlabelled data, or to predict from few labels, and write a run folder.

    What is not given follows the method's recipe, which `tacit methods METHOD` shows. Labels, if the
    data have some, only serve the online probe, unless the method is semi-supervised: then it learns from
    the labels of the budget, and from all images of the training split without labels.

    Args:
        method: slug of the method, such as dcl; `tacit methods` lists them.
        data: a folder of images (with or without class folders) or of volumes, a MedMNIST-style .npz,
            hf:NAME, or digits or mnist5k, which come inside pip packages.
        out: the run folder; default runs/METHOD-DATA.
        encoder: spec string (timm/resnet50, tacit/vnet, run:runs/photos, ...) or a module of your own (see
            attach_card); default: the method's.
        options: the method's own arguments, such as temperature.
        images: images that joint-image-volume learns from beside volumes.
        labels: CSV of file names and classes, or "none" to ignore class folders and masks.
        label_column: of the classes, in this CSV, by title or by number from 1; default: label,
            class, target, grade or y, else the only one that is left.
        file_column: of the files, in CSVs of labels, values or groups; default: the one that names
            the samples.
        masks: folder with the masks, called as the images or volumes are, where they do not lie beside them.
        values: CSV of file names and values, for a method that learns values.
        column: of the values, in this CSV; default: value, target, age, y or label, else the only one with
            numbers.
        labelled: masks or values that are learned from; default: all.
        labels_per_class: labels of each class that a semi-supervised method learns from; default: all.
        label_fraction: the same as a share of each class's labels.
        held_out: held-out labels per label that is learned from, for validation and calibration; default
            0.25. Data with a validation split are validated on that instead.
        groups: CSV of file names and groups, such as patients, or re:PATTERN for the names; held-out images
            are of other groups than those that are learned from.
        folders: whether folders of the first level are classes or splits, where their names leave it open.
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
        devices: how many of them on each computer.
        nodes: computers that learn together; start the command on each (docs/several-devices.md).
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
    return run_method(Options.of(locals()))
