"""What recipes are made of: the sizes and hyperparameters at which kernels go wrong."""

from __future__ import annotations

from typing import Any

from npattn.attention import CBAM, EfficientChannelAttention, PositionAttention, Residual, SqueezeExcitation

__all__ = ["BATCH", "EDGE_SIZES", "HEIGHT", "OPTIONS", "OWN_SIZES", "WIDTH"]

EDGE_SIZES = (
    (2, 1, 5, 3),
    (3, 16, 1, 1),
    (1, 15, 4, 4),
    (2, 16, 17, 1),
    (1, 17, 1, 31),
    (2, 31, 4, 8),
    (1, 32, 11, 3),
    (3, 33, 7, 9),
    (1, 63, 8, 8),
    (2, 64, 5, 13),
    (1, 65, 1, 127),
    (1, 127, 16, 8),
    (1, 128, 3, 5),
    (1, 129, 3, 43),
)
"""Batch, channels, height, width: channels and positions are 1, powers of two, and one off them, in many pairs."""
BATCH, HEIGHT, WIDTH = 3, 7, 9
"""The size of the other kinds of cases."""
POOLS = ("avg", "max", "lp", "lse")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "se": [
        *({"reduction": 1}, {"reduction": 100}, {"bias": False}, {"hidden": 5}),
        *({"activation": name} for name in ("silu", "hard_swish", "gelu", "leaky_relu")),
        {"gate": "hard_sigmoid"},
        *({"batch_norm": True}, {"batch_norm": True, "training": True}, {"add_maxpool": True}),
    ],
    "eca": [{"kernel_size": 1}, {"kernel_size": 7}, {"kernel_size": 65}],
    "ge": [
        *({"extra_params": False, "extent": extent} for extent in (0, 2, 8)),
        *({"extra_params": False, "mlp": False}, {"extent": 2}, {"extent": 0, "feat_size": 7}, {"batch_norm": False}),
        *({"activation": "silu"}, {"gate": "hard_sigmoid"}, {"reduction": 1}, {"hidden": 5}),
    ],
    "flexible": [{"reduction": 1}, {"reduction": 100}],
    "sliding-window": [{"window": 1, "stride": 1}, {"window": 4, "stride": 4}, {"window": 100}, {"classes": 2}],
    "flexible-segmentation": [{"window": 1, "stride": 1}, {"window": 100}, {"reduction": 1}],
    "cbam": [
        *({"pools": (p,)} for p in POOLS),
        *({"pools": POOLS}, {"spatial": False}, {"batch_norm": False}, {"kernel_size": 3}),
        {"hidden": 5, "bias": False, "activation": "silu", "gate": "hard_sigmoid"},
    ],
    "cbam-channel": [
        *({"pools": (p,)} for p in POOLS),
        *({"pools": POOLS}, {"reduction": 100}, {"hidden": 5}, {"bias": False}),
        *({"activation": "silu"}, {"activation": "hard_swish"}, {"gate": "hard_sigmoid"}),
    ],
    "cbam-spatial": [{"batch_norm": False}, {"kernel_size": 1}, {"kernel_size": 3}, {"gate": "hard_sigmoid"}],
    "bam": [{"variant": "paper"}, {"dilation": 1}, {"dilation": 16}, {"reduction": 1}, {"reduction": 100}],
    "coordinate": [{"reduction": 1}, {"hidden": 5}, {"bias": False}],
    "simam": [{"variant": "paper"}, {"e_lambda": 1}],
    "triplet": [{"spatial": False}, {"kernel_size": 1}, {"kernel_size": 3}],
    "attention-gate": [
        *({"stride": 2}, {"stride": 2, "batch_norm": False}, {"stride": 3}, {"batch_norm": False}),
        *({"gating_channels": None}, {"gating_channels": 1}, {"hidden": 1}, {"hidden": 33}),
    ],
    "sge": [{"groups": 1}, {"groups": 32}, {"variant": "paper"}],
    "ema": [{"groups": 1}, {"groups": 2}, {"groups": 32}],
    "polarized": [
        *({"form": "sequential"}, {"variant": "paper"}, {"form": "sequential", "variant": "paper"}),
        *({"hidden": 1}, {"hidden": 33}),
    ],
    "pam": [{"reduction": 1}, {"reduction": 100}],
    "criss-cross": [{"reduction": 1}, {"reduction": 100}, {"recurrence": 1}, {"recurrence": 3}],
    "cam": [{"variant": "code"}],
    "danet": [{"variant": "code"}, {"size": (9, 20)}, {"classes": 1}],
    "gc": [
        *({"fuse": ("add",)}, {"fuse": ("scale",)}, {"attention": False}, {"reduction": 1}, {"hidden": 5}),
        *({"activation": "silu"}, {"activation": "hard_swish"}, {"gate": "hard_sigmoid"}, {"eps": 1e-5}),
    ],
    "non-local": [
        *({"variant": "dot_product"}, {"subsample": True}, {"variant": "dot_product", "subsample": True}),
        *({"scale": 1}, {"hidden": None}, {"hidden": 5}, {"batch_norm": False}),
    ],
    "external": [{"memory": 1}, {"memory": 33}, {"block": False}],
    "double": [{"hidden": 1}, {"hidden": 33}, {"maps": 1}, {"maps": 33}],
    "linear": [{"heads": 1}, {"key_channels": 2}, {"value_channels": 32}, {"key_channels": 64}],
    "lambda": [
        *({"heads": 1}, {"heads": 16}, {"key_channels": 1}, {"key_channels": 33}, {"qk_ratio": 2}),
        *({"kernel_size": 1}, {"kernel_size": 9}, {"feat_size": (HEIGHT, WIDTH)}, {"stride": 2}, {"bias": True}),
    ],
    "mhsa": [
        {"heads": 1},
        {"heads": 16},
        {"causal": True},
        {"bias": True},
        {"padding": True},
        {"causal": True, "bias": True, "padding": True},
    ],
    "sdpa": [
        {"causal": None, "sink": False},
        {"causal": "bottom-right"},
        {"key_heads": 1},
        {"key_heads": 4},
        {"window": (2, 0)},
        {"window": (1, 3), "causal": None},
        {"softcap": 2},
        {"bias": True},
        {"mask": True, "causal": None},
        {"lengths": True, "causal": None},
        {"logsumexp": True, "sink": False},
        {"scale": 1},
        {
            "causal": "bottom-right",
            "window": (4, 0),
            "softcap": 2,
            "bias": True,
            "mask": True,
            "lengths": True,
            "logsumexp": True,
        },
    ],
    "window": [
        *({"shift": 0}, {"shift": (0, 3)}, {"window": 1, "shift": 0}, {"window": (2, 5), "shift": 1}),
        *({"heads": 1}, {"head_channels": 3}, {"bias": False}, {"mask_value": -100}),
    ],
    "bottleneck": [
        *({"stride": 2}, {"heads": 1}, {"heads": 8}, {"head_dim": 1}, {"head_dim": 33}, {"out_channels": 32}),
        *({"bias": True}, {"scale_pos_embed": True}, {"head_dim": None, "qk_ratio": 2}),
    ],
    "halo": [
        *({"stride": 2}, {"stride": 2, "avg_down": True}, {"heads": 1}, {"head_dim": 33}, {"out_channels": 32}),
        *({"block_size": 1}, {"block_size": 3, "stride": 2}, {"halo_size": 0}, {"halo_size": 3, "block_size": 4}),
        *({"bias": True}, {"scale_pos_embed": True}, {"head_dim": None, "qk_ratio": 2}),
    ],
    "shuffle": [{"groups": 1}, {"groups": 16}],
    "sk": [
        *({"split_input": False}, {"dilated": False}, {"kernel_sizes": (3, 5, 7, 1)}, {"stride": 2}, {"groups": 2}),
        *({"out_channels": 2}, {"hidden": 3}, {"activation": "silu"}),
    ],
    "split": [
        *({"radix": 1}, {"radix": 4}, {"groups": 2}, {"stride": 2}, {"dilation": 2}, {"kernel_size": 1}),
        *({"out_channels": 2}, {"batch_norm": False}, {"bias": True}, {"activation": "silu"}),
    ],
    "multi-scale": [{"rates": (1,)}, {"rates": (12, 24, 36)}, {"out_channels": 1}],
    "residual": [
        {"inner": Residual(SqueezeExcitation(16))},
        {"inner": EfficientChannelAttention(16)},
        {"inner": CBAM(16)},
        {"inner": PositionAttention(16)},
    ],
    "soft-hard": [{"k": 1}, {"k": HEIGHT * WIDTH}],
    "pcm": [{"embedding": 2}, {"embedding": 33}],
}
"""Hyperparameters to be tried, by a system's key: what differs from its example."""
OWN_SIZES: dict[str, list[tuple[tuple[int, int, int], dict[str, Any]]]] = {
    "sdpa": [
        ((2, 5, 15), {"head_dim": 1, "value_dim": 2}),
        ((3, 1, 16), {"head_dim": 16, "causal": "bottom-right"}),
        ((1, 17, 1), {"head_dim": 31}),
        ((2, 1, 1), {"head_dim": 32}),
        ((1, 65, 65), {"head_dim": 63}),
        ((1, 16, 33), {"head_dim": 64, "value_dim": 32, "causal": None}),
        ((2, 33, 16), {"head_dim": 65, "causal": "bottom-right"}),
        ((1, 31, 32), {"head_dim": 96, "heads": 2, "key_heads": 1}),
        ((1, 63, 64), {"head_dim": 128, "heads": 2, "key_heads": 1}),
        ((1, 64, 127), {"head_dim": 127, "heads": 2, "key_heads": 1, "causal": "bottom-right"}),
        ((1, 32, 129), {"head_dim": 160, "value_dim": 96, "heads": 2, "key_heads": 1, "causal": None}),
        ((1, 33, 65), {"head_dim": 192, "value_dim": 128, "heads": 2, "key_heads": 2}),
        ((1, 17, 16), {"head_dim": 97, "value_dim": 95, "heads": 1, "key_heads": 1}),
        ((1, 16, 15), {"head_dim": 161, "value_dim": 159, "heads": 1, "key_heads": 1, "causal": "bottom-right"}),
        ((1, 15, 33), {"head_dim": 191, "value_dim": 193, "heads": 1, "key_heads": 1}),
        ((1, 140, 137), {"head_dim": 8, "heads": 2, "key_heads": 1}),  # begun blocks of 128, seen by causal queries
        ((1, 65, 32), {"head_dim": 256, "heads": 1, "key_heads": 1}),
        ((1, 15, 17), {"head_dim": 257, "heads": 1, "key_heads": 1}),
        ((1, 1024, 1024), {"head_dim": 16, "heads": 1, "key_heads": 1}),
    ],
}
"""Batch, height and width, with hyperparameters, where it is not channels and positions by which sizes are hard."""
