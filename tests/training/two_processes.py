"""A program that learns each method with two processes; test_exactness.py compares it with one process.

Lightning starts the second process by running this file again.
"""

import sys

import torch

import tacit
from tacit.methods.clustering.deepcluster import DeepClusterV2
from tacit.methods.clustering.swav import SwAV
from tacit.methods.contrastive.moco import MoCo
from tacit.methods.contrastive.nnclr import NNCLR
from tacit.methods.contrastive.simclr import SimCLR


class Standing:
    """BatchNorm stands still: with statistics per process two processes cannot equal one.

    (On CUDA devices `fit` synchronises them; torch can do so there only.)
    """

    def losses(self, views, step):
        self.eval()
        return super().losses(views, step)

    def on_epoch(self, source, step):
        self.eval()
        super().on_epoch(source, step)


class StillSimCLR(Standing, SimCLR):
    pass


class StillMoCo(Standing, MoCo):
    pass


class StillNNCLR(Standing, NNCLR):
    pass


class StillSwAV(Standing, SwAV):
    pass


class StillDeepCluster(Standing, DeepClusterV2):
    pass


METHODS = {
    "StillSimCLR": {},
    "StillMoCo": {"queue": 40},
    "StillNNCLR": {"queue": 40, "hidden": 32, "prediction_hidden": 32},
    "StillSwAV": {"queue": 24, "prototypes": 20, "hidden": 32, "small": 2, "freeze_prototypes": 3},
    "StillDeepCluster": {"hidden": 32, "prototypes": 7, "small": 1},
}


def learn(name, data, out, devices):
    torch.set_num_threads(1)
    return tacit.fit(
        f"two_processes:{name}",
        data,
        encoder="tacit/convnet?width=8",
        options=METHODS[name],
        optimizer="momentum",
        lr=1.0 if name == "StillNNCLR" else 0.3,
        lr_scaling="none",
        schedule="constant",
        warmup=0.0,
        recipe="paper",
        batch_size=16,
        epochs=2,
        device="cpu",
        devices=devices,
        quiet=True,
        out=out,
    )


if __name__ == "__main__":
    for name in METHODS:
        learn(name, sys.argv[1], f"{sys.argv[2]}/{name}", 2)
