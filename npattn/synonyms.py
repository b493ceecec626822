"""What published code calls the hyperparameters that have other names here."""

from __future__ import annotations

__all__ = ["SYNONYMS", "is_synonym"]

SYNONYMS = {
    "channels": "in_channels in_planes inplanes planes input_channels gate_channels in_features features filters dim "
    "in_dim embed_dim d_model hidden_size width inp inc c ch chs c1 cin c_in",
    "out_channels": "out out_planes outplanes output_channels out_features out_dim oup ouc c2 cout c_out filters",
    "reduction": "ratio r rd_ratio se_ratio squeeze squeeze_ratio squeeze_factor squeeze_channels reduction_ratio "
    "reduction_rate reduction_factor reduce rd_channels",
    "kernel_size": "k k_size ksize kernel ks window",
    "bias": "qkv_bias conv_bias",
    "heads": "nhead h num_attention_heads",
    "classes": "nclass nclasses ncls num_labels labels out_channels categories",
    "rates": "dilations dilation atrous_rates atrous dilation_rates",
    "batch_norm": "bn norm batchnorm norm_layer",
    "spatial": "spatial_gate spatial_attention",
    "pools": "pool_types pool_type pooling",
    "variant": "mode kind version flavour flavor",
    "training": "train train_mode",
    "dropout": "p drop drop_rate drop_prob drop_p dropout_p dropout_rate dropout_ratio",
    "size": "image_size output_size out_size resolution img_size",
    "window": "window_size win win_size kernel_size kernel patch_size patch k",
    "stride": "step hop",
    "embedding": "embed_dim embedding_dim embedding_channels embedding_size embed out_channels hidden_channels",
    "inner": "module block layer fn body wrapped system attention",
    "gamma": "slope",
    "b": "beta offset intercept",
    "k": "topk top_k n num samples num_samples points",
}
SYNONYMS["in_channels"] = f"channels {SYNONYMS['channels']}"
"""What else published code calls a hyperparameter, by the name that it has here."""


def is_synonym(name: str, field: str) -> bool:
    """Tell whether published code calls a hyperparameter by a name, counts and switches marked as such or not.

    Examples
    --------
    >>> is_synonym("num_heads", "heads"), is_synonym("ratio", "heads")
    (True, False)
    """
    bare = name.lower().replace("-", "_")
    for mark in ("num_", "n_", "nb_", "use_", "with_", "has_", "is_", "no_"):
        bare = bare.removeprefix(mark)
    known = (field, *SYNONYMS.get(field, "").split())
    return name.lower() in known or bare in known
