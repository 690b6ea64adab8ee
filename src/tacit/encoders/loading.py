"""How to load a saved encoder without us: lines of Python that stand in `encoder.json`."""

from __future__ import annotations

from typing import Any

from tacit.encoders.card import EncoderCard
from tacit.encoders.spec import WEIGHTS_WORD, Spec

_READ = ["from safetensors.torch import load_file"]
_FILL = ["model.load_state_dict(load_file('encoder.safetensors'))"]
_SMALL = [
    "old = model.conv1  # made for large images: replaced by 3 x 3 without stride, and no pooling",
    "model.conv1 = torch.nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, bias=old.bias is not None)",
    "model.maxpool = torch.nn.Identity()",
]


def loading_lines(card: EncoderCard, **more: Any) -> list[str]:
    """Python that gives the encoder, as `model`, in the folder where it was saved.

    For timm's models with timm alone, for others with tacit; a module of the user's own has to be built.

    more: further arguments of `timm.create_model` that the encoder was built with, such as `img_size`;
    those of its spec go before.
    """
    if not card.spec:
        return [*_READ, "model = ...  # build your module, as it was when it learned", *_FILL]
    spec = Spec.parse(card.spec)
    if spec.family != "timm":
        return ["import tacit", "model = tacit.load_encoder('.')"]
    words = {**more, **{k: v for k, v in spec.options.items() if k != WEIGHTS_WORD}}
    given = "".join(f", {name}={value!r}" for name, value in words.items())
    made = f"model = timm.create_model({spec.name!r}, num_classes=0, in_chans={card.channels}{given})"
    small = ["import torch", *_SMALL] if card.small_input else []
    return ["import timm", *_READ, made, *small, *_FILL]
