"""Spec strings taken apart, and the words that each family of encoders takes.

A spec string can come from a stranger's card or configuration. It describes an architecture and nothing else:
each word is on the list of its family, and each value is a number, a truth value, or a text that cannot be a
path. The one exception is timm's `weights`, which names a file; cards are built without it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tacit.checks import shortly
from tacit.errors import UsageError, did_you_mean, unknown

FAMILIES = ("timm", "tacit", "monai")
WEIGHTS_WORD = "weights"
LARGEST = 2**20
"""Largest number that an option can have."""
DEEPEST = 1000
"""Largest number of layers; the widths of ours double from layer to layer."""
_SHOWN = 12  # words that an error names
_FORMS = "timm/NAME, tacit/NAME or monai/NAME"
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
_TEXT = re.compile(r"[\w+-]*(,[\w+-]*)*")

TIMM_WORDS = frozenset(
    {
        # input and patches
        *("img_size", "patch_size", "window_size", "output_stride", "stem_size", "stem_type", "stem_width"),
        *("dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
        # width and depth
        *("embed_dim", "depth", "num_heads", "head_dim", "key_dim", "mlp_ratio", "width", "base_width"),
        *("cardinality", "growth_rate", "bn_size", "expand_ratio", "se_ratio", "reduction", "kernel_size"),
        *(
            "width_mult",
            "depth_mult",
            "width_factor",
            "channel_multiplier",
            "head_hidden_size",
            "num_features",
        ),
        *("init_channels", "reg_tokens", "num_reg_tokens"),
        # what blocks have
        *("qkv_bias", "qk_norm", "proj_bias", "mlp_bias", "conv_bias", "class_token", "no_embed_class"),
        *("pre_norm", "fc_norm", "use_fc_norm", "final_norm", "head_norm", "head_norm_first", "patch_norm"),
        *("norm_eps", "init_values", "layer_scale_init_value", "ls_init_value", "head_init_scale"),
        *("pos_embed", "use_pos_embed", "use_rel_pos", "use_abs_pos", "shared_rel_pos", "use_rope"),
        *("avg_down", "conv_mlp", "scale_mlp", "swiglu_mlp", "use_grn", "zero_init_last", "global_pool"),
        # regularisation
        *("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate"),
        *("patch_drop_rate", "drop_block_rate"),
    }
)
"""Words of timm's models that describe an architecture in numbers, truth values and names.

Left out is all else that `create_model` and its models take: files, folders and configurations of weights
(`checkpoint_path`, `pretrained_cfg`, `pretrained_cfg_overlay`, `cache_dir`), other outputs (`features_only`),
devices, and layers given as classes.
"""
MONAI_WORDS = frozenset(
    {
        *("spatial_dims", "img_size", "patch_size", "window_size", "feature_size", "channels", "strides"),
        *("kernel_size", "kernel_sizes", "up_kernel_size", "upsample_kernel_size", "features", "filters"),
        *("depths", "depth", "num_heads", "heads", "hidden_size", "mlp_dim", "mlp_ratio", "num_layers"),
        *(
            "num_res_units",
            "num_res_blocks",
            "num_blocks",
            "num_refinement_blocks",
            "res_block",
            "conv_block",
        ),
        *("init_filters", "init_features", "growth_rate", "block_config", "bn_size", "layers", "num_groups"),
        *(
            "blocks_down",
            "blocks_up",
            "blocks_bottleneck",
            "block_inplanes",
            "stride",
            "dilation",
            "dilations",
        ),
        *("act", "norm", "norm_name", "norm_type", "act_name", "acti_type", "activation", "adn_ordering"),
        *("bias", "trans_bias", "decoder_bias", "qkv_bias", "norm_eps", "norm_num_groups", "patch_norm"),
        *("dropout", "dropout_rate", "dropout_dim", "dropout_prob", "dropout_prob_down", "dropout_prob_up"),
        *("drop_rate", "attn_drop_rate", "dropout_path_rate", "normalize", "proj_type", "use_v2"),
        *("upsample_mode", "upsample", "downsample", "interp_mode", "align_corners", "use_conv_final"),
        *("deep_supervision", "deep_supr_num", "dsdepth", "expand_ratio", "ffn_expansion_factor", "se_ratio"),
    }
)
"""The same of MONAI's networks; `pretrained`, `backbone` and the like are left out."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec string taken apart."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Take `family/name?key=value&...` apart; values are read as numbers or booleans if they can be.

        Raises:
            UsageError: no family, or one we do not know.
        """
        path, _, query = text.partition("?")
        family, slash, name = path.partition("/")
        if not slash:
            raise UsageError(f"encoder '{text}' names no family{_meant(path)}")
        if family not in FAMILIES:
            raise unknown("encoder family", family, [*FAMILIES, "run:", "random:"])
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        return cls(family, name, {key: _value(value) for key, _, value in pairs})

    def check(self, words: Collection[str], *, texts: Collection[str] = ()) -> None:
        """Refuse a name or options that describe no architecture.

        words: those that the family takes. texts: those of them whose text can be anything.

        Raises:
            UsageError: names the first of them.
        """
        where = f"{self.family}/{self.name}"
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"encoder '{where}': a name has letters, digits, '_', '-' and dots between them")
        for key, value in self.options.items():
            if key not in words:
                near = did_you_mean(key, words) or f"; it takes {', '.join(sorted(words)[:_SHOWN])}"
                more = " ..." if len(words) > _SHOWN and "did you" not in near else ""
                raise UsageError(f"unknown option of {where} '{key}'{near}{more}")
            if isinstance(value, str) and key not in texts and not _TEXT.fullmatch(value):
                raise UsageError(f"encoder {where}: {key} takes a number, a word or true, not '{value}'")
            most = DEEPEST if key == "depth" else LARGEST
            if isinstance(value, int | float) and not abs(value) <= most:
                raise UsageError(f"encoder {where}: {key} may be {most:,} at most, not {shortly(value)}")


def is_timm(name: str) -> bool:
    """Whether timm has a model of this name; a tag after the dot does not matter."""
    from timm.models import is_model

    return is_model(name.partition(".")[0])


def _meant(path: str) -> str:
    from tacit.encoders.zoo import OWN

    meant = "timm" if is_timm(path) else "tacit" if path in OWN else ""
    return f"; did you mean '{meant}/{path}'?" if meant else ": write " + _FORMS


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
