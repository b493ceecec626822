"""timm and torchvision as witnesses: their attention modules, and ours with the hyperparameters that these have."""

import importlib

import numpy as np
import pytest

from npattn import (
    CBAM,
    BottleneckAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    GlobalContext,
    HaloAttention,
    NonLocal,
    SelectiveKernel,
    SplitAttention,
    SqueezeExcitation,
)

ACTIVATIONS = {"ReLU": "relu", "SiLU": "silu", "Swish": "silu", "Hardswish": "hard_swish", "HardSwish": "hard_swish"}
ACTIVATIONS |= {"GELU": "gelu", "LeakyReLU": "leaky_relu"}
GATES = {"Sigmoid": "sigmoid", "Hardsigmoid": "hard_sigmoid", "HardSigmoid": "hard_sigmoid"}
OPERATORS = ("nms", "qnms")
"""Of torchvision, which it declares in compiled code."""


def installed(library):
    """Import timm or torchvision, or skip the test.

    Beside a PyTorch for CPUs alone a torchvision that was built for GPUs can't load its compiled code, and stops where
    it names the operators in it. None of the modules here needs any: they are declared, without anything to run.
    """
    torch = pytest.importorskip("torch")
    try:
        return pytest.importorskip(library)
    except RuntimeError:
        for operator in OPERATORS:
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
        return importlib.import_module(library)


def is_attention(block):
    """Tell whether a module of timm or torchvision is one that has a counterpart here."""
    kinds = {
        "SEModule",
        "SqueezeExcite",
        "SqueezeExcitation",
        "EcaModule",
        "CbamModule",
        "GlobalContext",
        "NonLocalAttn",
        "SelectiveKernel",
        "SplitAttn",
        "BottleneckAttn",
        "HaloAttn",
        "CoordAttn",
    }
    return type(block).__name__ in kinds


def counterpart(block, channels, training=False):
    """Our module with the hyperparameters of one of theirs; `channels` where that doesn't tell them."""
    makers = {
        "EcaModule": lambda: EfficientChannelAttention(channels, block.conv.kernel_size[0]),
        "CbamModule": lambda: CBAM(
            **excitation(block.channel), kernel_size=block.spatial.conv.conv.kernel_size[0], training=training
        ),
        "GlobalContext": lambda: global_context(block),
        "NonLocalAttn": lambda: NonLocal(
            block.t.in_channels, hidden=block.t.out_channels, scale=block.scale, training=training
        ),
        "SelectiveKernel": lambda: selective_kernel(block, training),
        "SplitAttn": lambda: split_attention(block, training),
        "BottleneckAttn": lambda: bottleneck_attention(block),
        "HaloAttn": lambda: halo_attention(block),
        "CoordAttn": lambda: CoordinateAttention(
            block.conv1.in_channels,
            hidden=block.conv1.out_channels,
            bias=block.conv1.bias is not None,
            training=training,
        ),
    }
    return makers.get(type(block).__name__, lambda: squeeze_excitation(block))()


def squeeze_excitation(block):
    """Ours with what their block has."""
    norm, both = type(getattr(block, "bn", None)).__name__, getattr(block, "add_maxpool", False)
    return SqueezeExcitation(**excitation(block), batch_norm=norm == "BatchNorm2d", add_maxpool=both)


def global_context(block):
    """Ours with what timm's block has."""
    transforms = {"scale": block.mlp_scale, "add": block.mlp_add}
    some = block.mlp_scale or block.mlp_add
    return GlobalContext(
        some.fc1.in_channels,
        fuse=tuple(name for name, transform in transforms.items() if transform is not None),
        attention=block.conv_attn is not None,
        hidden=some.fc1.out_channels,
        activation=ACTIVATIONS[type(some.act).__name__],
        gate=GATES[type(block.gate).__name__],
        eps=some.norm.eps,
    )


def selective_kernel(block, training=False):
    """Ours with what timm's block has."""
    convs = [path.conv for path in block.paths]
    spans = tuple(conv.dilation[0] * (conv.kernel_size[0] - 1) + 1 for conv in convs)
    return SelectiveKernel(
        block.in_channels,
        block.out_channels,
        spans,
        dilated=any(conv.dilation[0] > 1 for conv in convs),
        split_input=block.split_input,
        stride=convs[0].stride[0],
        groups=convs[0].groups,
        hidden=block.attn.fc_reduce.out_channels,
        activation=ACTIVATIONS[type(block.paths[0].bn.act).__name__],
        training=training,
    )


def split_attention(block, training=False):
    """Ours with what timm's block has."""
    conv = block.conv
    return SplitAttention(
        conv.in_channels,
        block.fc1.in_channels,
        conv.kernel_size[0],
        stride=conv.stride[0],
        dilation=conv.dilation[0],
        groups=block.fc1.groups,
        radix=block.radix,
        hidden=block.fc1.out_channels // block.radix,
        activation=ACTIVATIONS[type(block.act0).__name__],
        batch_norm=type(block.bn0).__name__ == "BatchNorm2d",
        bias=conv.bias is not None,
        training=training,
    )


def bottleneck_attention(block):
    """Ours with what timm's block has."""
    return BottleneckAttention(
        block.qkv.in_channels,
        (block.pos_embed.height, block.pos_embed.width),
        block.dim_out_v,
        stride=getattr(block.pool, "stride", 1),
        heads=block.num_heads,
        head_dim=block.dim_head_qk,
        bias=block.qkv.bias is not None,
        scale_pos_embed=block.scale_pos_embed,
    )


def halo_attention(block):
    """Ours with what timm's block has."""
    averages = hasattr(block.pool, "stride")
    return HaloAttention(
        block.q.in_channels,
        block.dim_out_v,
        stride=block.pool.stride if averages else block.block_stride,
        heads=block.num_heads,
        head_dim=block.dim_head_qk,
        block_size=block.block_size,
        halo_size=block.halo_size,
        bias=block.q.bias is not None,
        avg_down=averages,
        scale_pos_embed=block.scale_pos_embed,
    )


def excitation(block):
    """The hyperparameters of two layers, whatever they are called."""
    first = layer_of(block, "fc1", "conv_reduce")
    return {
        "channels": first.in_channels,
        "hidden": first.out_channels,
        "bias": first.bias is not None,
        "activation": ACTIVATIONS[type(layer_of(block, "act", "act1", "activation", "relu")).__name__],
        "gate": GATES[type(layer_of(block, "gate", "scale_activation", "sigmoid")).__name__],
    }


def layer_of(block, *names):
    return next(getattr(block, name) for name in names if hasattr(block, name))


def draw(block, seed=0):
    """Give a module double precision throughout, and generic values in place of its parameters and statistics."""
    import torch

    block.to_empty(device="cpu").double()
    for layer in block.modules():
        if isinstance(layer, torch.nn.Hardsigmoid):  # its own way back multiplies by a sixth in single precision
            layer.forward = lambda z: torch.nn.functional.relu6(z + 3) / 6
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, value in block.state_dict().items():
            values = random.standard_normal(tuple(value.shape)) / 2
            value.copy_(torch.tensor(np.abs(values) + 0.5 if name.endswith("running_var") else values))
    return block


def assert_witnessed(module, block, state, prefix="", seed=0):
    """Hold output, gradients and running statistics to those of theirs, whose state dict is loaded as it is."""
    import torch

    params = module.from_state_dict(state, prefix)
    before = {name: value.copy() for name, value in params.items()}
    random = np.random.RandomState(seed)
    x = random.standard_normal(module.input_shapes(3, 4, 5)["x"])
    [shape] = module.output_shapes(3, 4, 5).values()
    dy = random.standard_normal(shape)
    leaf = torch.tensor(x, requires_grad=True)
    block.train(getattr(module, "training", False))
    expected = block(leaf * 1.0)  # a copy: some write to what they are given
    expected.backward(torch.tensor(dy))
    run = module(params, x)
    dx, grads = run.backward(dy)
    agree(run.output, expected.detach().numpy())
    agree(dx, leaf.grad.numpy())
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    after = module.from_state_dict(block.state_dict())  # a gradient is laid out as its parameter is
    theirs = module.from_state_dict(gradients | dict(block.named_buffers()))
    assert grads.keys() == module.parameter_shapes().keys()
    largest = max((np.abs(theirs[name]).max() for name in grads), default=0)
    for name, gradient in grads.items():
        agree(gradient, theirs[name], name, 0.1 * largest)  # some are rounding alone
    weight = 10 if module.key.startswith("cbam") else 1  # that of a batch in timm, in units of that here
    for name, value in run.buffers.items():
        agree(weight * (value - before[name]), after[name] - before[name], name)


def agree(ours, theirs, name="", smallest=1e-290):
    """Compare to 1e-10 of the largest number, or of `smallest` where that is more."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * max(np.abs(theirs).max(), smallest), err_msg=name)
