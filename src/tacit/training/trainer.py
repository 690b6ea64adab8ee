"""Lightning's trainer as a run needs it: quiet, without checkpoints, logs or samplers of its own."""

from __future__ import annotations

import logging
import warnings
from typing import Literal

import torch
from lightning.pytorch import Trainer

from tacit.evaluation.subject import pick_device
from tacit.training.learner import Learner
from tacit.training.options import Machine
from tacit.training.watch import Watch


def make_trainer(learner: Learner, watch: Watch, machine: Machine) -> Trainer:
    """A trainer for one run: devices, precision, distribution, accumulation, clipping, and nothing else."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*lower than the interval.*",
        ".*isinstance.*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message, module="lightning.*")
    device, devices = pick_device(machine.device), machine.devices
    return Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if device.index is not None and devices == 1 else devices,
        num_nodes=machine.nodes,
        strategy=_strategy(learner) if machine.processes > 1 else "auto",
        sync_batchnorm=machine.processes > 1 and device.type == "cuda",  # torch has it for CUDA only
        precision=_precision(machine.precision, device),
        accumulate_grad_batches=learner.plan.accumulate,
        gradient_clip_val=learner.recipe.clip,
        max_epochs=1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _strategy(learner: Learner) -> str:
    return "ddp_find_unused_parameters_true" if learner.method.rests else "ddp"


def _precision(wanted: str, device: torch.device) -> Literal["32-true", "bf16-mixed"]:
    if wanted == "auto":
        good = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = "bf16" if good else "32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"
