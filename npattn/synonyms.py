"""What published code calls the hyperparameters, their values and the parameters that have other names here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "STAND_INS",
    "SYNONYMS",
    "VALUE_SYNONYMS",
    "Naming",
    "is_other_name",
    "is_other_value",
    "is_synonym",
    "same_value",
    "solid",
]

SYNONYMS = {
    "channels": "in_channels in_planes inplanes planes input_channels gate_channels in_features features filters dim "
    "in_dim embed_dim d_model hidden_size width inp inc c ch chs c1 cin c_in f_l",
    "gating_channels": "f_g gate_channels g_channels",
    "out_channels": "out dim_out out_planes outplanes output_channels out_features out_dim oup ouc c2 cout "
    "c_out filters",
    "reduction": "ratio r rd_ratio se_ratio squeeze squeeze_ratio squeeze_factor reduction_ratio "
    "reduction_rate reduction_factor reduce",
    "hidden": "hidden_channels hidden_dim c_m rd_channels squeeze_channels mid_channels mid bottleneck "
    "inter_channels inter_planes f_int",
    "activation": "act act_layer act_fn act1 nonlinearity delta",
    "gate": "gate_layer gate_fn scale_activation sigmoid",
    "LambdaLayer.kernel_size": "r",
    "dilated": "keep_3x3",
    "kernel_size": "k k_size ksize kernel ks window window_size spatial_kernel_size",
    "fuse": "fusion fusion_types fusion_type fuse_add fuse_scale",
    "attention": "attn pooling_type",
    "eps": "epsilon",
    "memory": "s k units memory_units num_memory",
    "block": "projections",
    "maps": "c_n n",
    "qk_ratio": "attn_ratio",
    "key_channels": "d_k dim_head k_channels",
    "value_channels": "d_v v_channels",
    "value_dim": "d_v value_channels v_channels",
    "subsample": "sub_sample subsampling",
    "scale": "scaling factor",
    "bias": "qkv_bias conv_bias mlp_bias",
    "groups": "g group num_group splits factor",
    "head_dim": "dim_head d_head head_size head_channels",
    "heads": "nhead h num_attention_heads",
    "classes": "nclass nclasses ncls num_labels labels out_channels categories",
    "dilation": "rate dilation_rate dilation_val atrous_rate",
    "extent": "e extent_ratio",
    "extra_params": "parameters learnt learned",
    "feat_size": "feature_size spatial size image_size img_size input_size resolution",
    "mlp": "excite",
    "recurrence": "recurrences times loops iterations iter",
    "form": "arrangement order",
    "rates": "dilations dilation atrous_rates atrous dilation_rates",
    "batch_norm": "bn norm batchnorm norm_layer",
    "spatial": "spatial_gate spatial_attention",
    "pools": "pool_types pool_type pooling",
    "variant": "mode kind version flavour flavor",
    "training": "train train_mode",
    "dropout": "p drop drop_rate drop_prob drop_p dropout_p dropout_rate dropout_ratio",
    "size": "image_size output_size out_size resolution img_size",
    "head_channels": "head_dim dim_head head_width",
    "shift": "shift_size",
    "window": "window_size win win_size kernel_size kernel patch_size patch k",
    "stride": "step hop sub_sample_factor",
    "embedding": "embed_dim embedding_dim embedding_channels embedding_size embed out_channels hidden_channels",
    "inner": "module block layer fn body wrapped system attention",
    "gamma": "slope",
    "b": "beta offset intercept",
    "e_lambda": "lambda lam lambd lmbda eps epsilon",
    "k": "topk top_k n num samples num_samples points",
}
SYNONYMS["in_channels"] = f"channels {SYNONYMS['channels']}"
SYNONYMS["kernel_sizes"] = f"kernel_size {SYNONYMS['kernel_size']}"
"""What else published code calls a hyperparameter, by the name that it has here; or that it has in a system here."""
OTHER_NAMES = "padding reconstruct"
"""What published code calls hyperparameters that no system has here, and that are spelt much like others."""
STAND_INS = {"hidden": "reduction"}
"""The hyperparameter that a synonym of another one may mean where a system lacks that."""
VALUE_SYNONYMS = {
    "silu": "swish silu_",
    "gelu": "gelu_python",
    "leaky_relu": "leaky_relu_ leakyrelu lrelu leaky",
    "relu": "relu_ rectifier",
    "hard_swish": "hswish h_swish hardswish",
    "sigmoid": "logistic sigm",
    "hard_sigmoid": "hsigmoid h_sigmoid hardsigmoid",
}
"""What else published code calls a hyperparameter's value, by the name that it has here."""
OTHER_VALUES = (
    "celu elu geglu gelu_fast gelu_new gelu_tanh gelu_pytorch_tanh glu hard_mish hard_tanh identity log_sigmoid mish "
    "none prelu quick_gelu relu6 rrelu selu softmax softmin softplus softsign swiglu tanh tanh_shrink"
)
"""Values that no hyperparameter has here, and that are spelt much like others: activations."""


@dataclass(frozen=True)
class Naming:
    """What published code calls a system's layers, and how it lays their arrays out.

    Attributes
    ----------
    layers : mapping of str to str, optional
        The names that layers have here, by their published ones: what stands before ``.weight`` and the like. Without
        it all names are those that stand here.
    reversed_inputs : collection of str
        Kernels, by their names here, whose input channels stand in the opposite order.

    Examples
    --------
    >>> timm = Naming({"conv_reduce": "fc1", "conv_expand": "fc2"})
    >>> timm.knows("conv_expand.bias"), timm.knows("conv_stem.weight")
    (True, False)
    >>> timm.translate("conv_expand.bias"), timm.restore("fc2.bias")
    ('fc2.bias', 'conv_expand.bias')
    """

    layers: Mapping[str, str] | None = None
    reversed_inputs: Collection[str] = ()

    @classmethod
    def join(cls, *parts: tuple[str, str, Naming]) -> Naming:
        """Join those of a system's parts, each with the prefix that it has in published code and the one here."""
        layers = {
            theirs + name: ours + layer for theirs, ours, part in parts for name, layer in (part.layers or {}).items()
        }
        return cls(layers, [ours + name for _, ours, part in parts for name in part.reversed_inputs])

    def knows(self, name: str) -> bool:
        """Tell whether a name is that of one of the layers' arrays."""
        return self.layers is None or name.rpartition(".")[0] in self.layers

    def prefer(self, names: Collection[str]) -> Naming:
        """Let the layers of some names be those that are restored, where others stand for the same ones.

        Examples
        --------
        >>> either = Naming({"phi.0": "p", "phi": "p"})
        >>> either.restore("p.weight"), either.prefer(["phi.0.weight"]).restore("p.weight")
        ('phi.weight', 'phi.0.weight')
        """
        if self.layers is None:
            return self
        present = {name.rpartition(".")[0] for name in names}
        return replace(self, layers=dict(sorted(self.layers.items(), key=lambda layer: layer[0] in present)))

    def translate(self, name: str) -> str:
        """Return the name that a published one has here."""
        return name if self.layers is None else rename_layer(name, self.layers)

    def restore(self, name: str) -> str:
        """Return the published name of what has a name here."""
        return rename_layer(name, {ours: theirs for theirs, ours in (self.layers or {}).items()})

    def lay_out(self, name: str, array: Any, shape: tuple[int, ...]) -> Any:
        """Lay an array out as that of a name here, as far as axes of length 1 and the order of its inputs go."""
        if self.layers is not None and solid(array.shape) == solid(shape):
            array = array.reshape(shape)
        return array[:, ::-1] if name in self.reversed_inputs and array.ndim > 1 else array


def rename_layer(name: str, layers: Mapping[str, str]) -> str:
    """Give a layer's array the name that the layer has in a mapping, if it has one there."""
    layer, dot, array = name.rpartition(".")
    return f"{layers.get(layer, layer)}{dot}{array}"


def solid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the axes of length 1: shapes that agree in the others hold the same numbers in the same order."""
    return tuple(size for size in shape if size != 1) if 1 in shape else shape


def same_value(given: str, choices: Collection[str]) -> list[str]:
    """List the choices that published code calls by a name.

    Examples
    --------
    >>> same_value("Swish", ["relu", "silu", "hard_swish"])
    ['silu']
    """
    return [choice for choice in choices if given.lower() in VALUE_SYNONYMS.get(choice, "").split()]


def is_other_value(given: str, choices: Collection[str]) -> bool:
    """Tell whether a value is one that published code knows and that is none of the choices, however it is spelt.

    Examples
    --------
    >>> is_other_value("GELU", ["relu"]), is_other_value("QuickGELU", ["gelu"]), is_other_value("rleu", ["relu"])
    (True, True, False)
    """
    names = " ".join([OTHER_VALUES, *(f"{value} {others}" for value, others in VALUE_SYNONYMS.items())]).split()
    found = without_marks(given)
    return found in map(without_marks, names) and found not in map(without_marks, choices)


def without_marks(value: str) -> str:
    """Leave out what spellings of a value differ in: "Hard-Tanh", "hard_tanh", "hardtanh"."""
    return value.lower().replace("_", "").replace("-", "")


def is_other_name(name: str, fields: Collection[str]) -> bool:
    """Tell whether a name is what published code calls a hyperparameter that is none of some, nor theirs but for an s.

    Examples
    --------
    >>> is_other_name("stride", ["hidden"]), is_other_name("stried", ["stride"])
    (True, False)
    >>> is_other_name("kernel_size", ["kernel_sizes"])
    False
    """
    if name.lower().rstrip("s") in [field.rstrip("s") for field in fields]:
        return False
    return name.lower() in OTHER_NAMES.split() or any(is_synonym(name, field) for field in SYNONYMS)


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
