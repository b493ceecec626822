import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import LambdaLayer
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity
from tests.attention.witnesses import agree, draw, installed
from tests.naming import for_each
from tests.strategies import cases, lambda_modules, seeds

any_modules = lambda_modules() | lambda_modules(training=True)
several = st.integers(3, 4)  # images, so that batch norm has a variance to speak of


def published(module):
    """The layer in PyTorch as the paper has it, with timm's names: one lambda for each position, for all heads."""
    torch = pytest.importorskip("torch")
    keys, values, inner = module.query_channels, module.value_channels, module.heads * module.query_channels

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if module.feat_size is not None:
                height, width = module.feat_size
                self.pos_emb = torch.nn.Parameter(torch.zeros(2 * height - 1, 2 * width - 1, keys))
            self.qkv = torch.nn.Conv2d(module.channels, inner + keys + values, 1, bias=module.bias)
            self.norm_q, self.norm_v = torch.nn.BatchNorm2d(inner), torch.nn.BatchNorm2d(values)
            if module.feat_size is None:
                size = module.kernel_size
                self.conv_lambda = torch.nn.Conv3d(1, keys, (size, size, 1), padding=(size // 2, size // 2, 0))
            self.train(module.training)

        def position_lambdas(self, v):
            """(B, V, H, W) to (B, N, V, K)."""
            height, width = v.shape[2:]
            if module.feat_size is None:
                return self.conv_lambda(v.permute(0, 2, 3, 1)[:, None]).flatten(2, 3).permute(0, 2, 3, 1)
            at = torch.cartesian_prod(torch.arange(height), torch.arange(width)).reshape(-1, 2)
            apart = at - at[:, None] + torch.tensor([height - 1, width - 1])
            table = self.pos_emb[apart[..., 0], apart[..., 1]]
            return torch.einsum("nmk,bvm->bnvk", table, v.flatten(2))

        def forward(self, x):
            batch, channels, height, width = x.shape
            q, k, v = self.qkv(x).split([inner, keys, values], 1)
            v = self.norm_v(v)
            content = torch.einsum("bkm,bvm->bvk", k.flatten(2).softmax(2), v.flatten(2))
            lambdas = content[:, None] + self.position_lambdas(v)
            q = self.norm_q(q).reshape(batch, module.heads, keys, height * width)
            y = torch.einsum("bekn,bnvk->bevn", q, lambdas).reshape(batch, channels, height, width)
            return torch.nn.functional.avg_pool2d(y, 2) if module.stride == 2 else y

    return Reference()


@given(cases(any_modules, batch=several), seeds)
@settings(max_examples=20, deadline=None)
def test_output_gradients_and_statistics_agree_with_pytorch(case, seed):
    module, params, inputs = case
    [shape] = module.output_shapes(len(inputs["x"]), *inputs["x"].shape[2:]).values()
    dy = np.random.RandomState(seed).standard_normal(shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=0.1)


@given(lambda_modules(training=True), seeds)
@settings(max_examples=8, deadline=None)
def test_gradients_agree_with_the_complex_step_in_training(module, seed):
    height, width = module.feat_size or (4, 5)
    inputs = generic_values(module, batch=4, height=height, width=width, seed=seed)
    # A bias before a norm has no gradient, nor one that all keys share.
    report = gradcheck(module, *inputs, method="adjoint", allow_zero=["qkv.bias"] if module.bias else [])
    assert report.passed, report


def timm_layer(module):
    installed("timm")
    return importlib.import_module("timm.layers.lambda_layer").LambdaLayer(
        module.channels,
        feat_size=module.feat_size,
        stride=module.stride,
        num_heads=module.heads,
        dim_head=module.key_channels if module.qk_ratio is None else None,
        r=module.kernel_size if module.feat_size is None else None,
        qk_ratio=module.qk_ratio or 1.0,
        qkv_bias=module.bias,
    )


def draw_layer(layer, seed=0):
    """Give a layer generic values, and the indices that drawing has lost."""
    draw(layer, seed)
    layer.init_non_persistent_buffers()
    return layer


def assert_layers_agree(module, layer, x, state, prefix=""):
    """Hold output, gradients and running statistics to those of timm's layer, whose state dict is loaded as it is."""
    import torch

    params = module.from_state_dict(state, prefix)
    leaf = torch.tensor(x, requires_grad=True)
    layer.train(module.training)
    expected = layer(leaf)
    run = module(params, x)
    dy = np.random.RandomState(1).standard_normal(run.output.shape)
    expected.backward(torch.tensor(dy))
    dx, grads = run.backward(dy)
    agree(run.output, expected.detach().numpy())
    agree(dx, leaf.grad.numpy())
    theirs = {name: parameter.grad.numpy() for name, parameter in layer.named_parameters()}
    assert list(grads) == list(module.parameter_shapes()) == list(theirs)
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, gradient in grads.items():
        agree(gradient, theirs[name], name, 0.1 * largest)  # some are rounding alone
    after = module.from_state_dict(layer.state_dict())
    for name, value in run.buffers.items():
        agree(value, after[name], name)


@given(any_modules, seeds)
@settings(max_examples=20, deadline=None)
def test_it_is_timms_layer(module, seed):
    height, width = module.feat_size or (4, 5)
    layer = draw_layer(timm_layer(module), seed)
    x = np.random.RandomState(seed).standard_normal((3, module.channels, height, width))
    assert_layers_agree(module, layer, x, layer.state_dict())


@pytest.mark.parametrize(("channels", "heads", "ratio"), [(24, 4, 1.0), (40, 2, 0.5), (20, 4, 0.7)])
def test_a_ratio_gives_timms_number_of_key_channels(channels, heads, ratio):
    module = LambdaLayer(channels, heads, kernel_size=3, qk_ratio=ratio)
    layer = draw_layer(timm_layer(module))
    assert module.query_channels == layer.dim_qk
    assert_layers_agree(
        module, layer, np.random.RandomState(0).standard_normal((2, channels, 3, 3)), layer.state_dict()
    )


@pytest.mark.parametrize(("name", "size", "count"), [("lambda_resnet26t", 128, 2), ("lambda_resnet26rpt_256", 64, 2)])
def test_every_lambda_layer_of_timms_models_loads_and_gives_its_values_and_gradients(name, size, count):
    timm = installed("timm")
    model = timm.create_model(name, num_classes=0, **({"img_size": size} if "rpt" in name else {}))
    layers = {where: layer for where, layer in model.named_modules() if type(layer).__name__ == "LambdaLayer"}
    assert len(layers) >= count
    for prefix, layer in list(layers.items())[:count]:
        kernel = (
            {"feat_size": tuple(layer.feat_size)}
            if layer.conv_lambda is None
            else {"kernel_size": layer.conv_lambda.kernel_size[0]}
        )
        stride = 2 if layer.pool.__class__.__name__ == "AvgPool2d" else 1
        module = LambdaLayer(layer.qkv.in_channels, layer.num_heads, layer.dim_qk, **kernel, stride=stride)
        layer.double()
        state = {**model.state_dict(), **dict(model.named_buffers())}  # with the indices, that a checkpoint may hold
        height, width = module.feat_size or (4, 5)
        x = np.random.RandomState(0).standard_normal((2, module.channels, height, width))
        assert_layers_agree(module, layer, x, state, f"{prefix}.")


def test_kernels_start_by_their_inputs_and_norms_as_the_identity():
    module = LambdaLayer(channels=256, bias=True)
    params = module.init(seed=1)
    assert params["qkv.weight"].std() == pytest.approx(1 / 16, rel=0.02)
    assert params["conv_lambda.weight"].std() == pytest.approx(1 / 4, rel=0.05)
    for name, bound in (("qkv.bias", 1 / 16), ("conv_lambda.bias", 1 / 9)):
        assert np.abs(params[name]).max() == pytest.approx(bound, rel=0.1), name
        assert np.abs(params[name]).max() <= bound, name
    assert (params["norm_q.weight"] == 1).all()
    table = LambdaLayer(channels=16, feat_size=(16, 16)).init(seed=1)["pos_emb"]
    assert table.std() == pytest.approx(0.02, rel=0.05)


@given(cases(any_modules, batch=several))
@settings(max_examples=20)
def test_keys_add_up_to_one_over_the_positions(case):
    module, params, inputs = case
    a = module(params, inputs["x"]).attention["keys"]
    assert a.shape == (len(inputs["x"]), module.query_channels, *inputs["x"].shape[2:])
    np.testing.assert_allclose(a.sum(axis=(2, 3)), 1, rtol=1e-12)


def test_a_table_that_is_zero_far_off_is_a_kernel():
    table = LambdaLayer(channels=8, heads=2, key_channels=3, feat_size=(4, 5))
    kernel = LambdaLayer(channels=8, heads=2, key_channels=3, kernel_size=3)
    params, inputs = generic_values(kernel, height=4, width=5)
    params["conv_lambda.bias"][:] = 0
    taps = np.zeros((7, 9, 3))
    taps[2:5, 3:6] = params["conv_lambda.weight"][:, 0, :, :, 0].transpose(1, 2, 0)
    others = {name: value for name, value in params.items() if not name.startswith("conv_lambda")} | {"pos_emb": taps}
    expected = kernel(params, inputs["x"]).output
    np.testing.assert_allclose(table(others, inputs["x"]).output, expected, rtol=1e-12)


def test_without_position_lambdas_positions_in_another_order_give_outputs_in_that_order():
    module = LambdaLayer(channels=8, heads=2, key_channels=3, feat_size=(2, 3))
    params, inputs = generic_values(module, height=2, width=3)
    params["pos_emb"][:] = 0
    x = inputs["x"]
    turned = module(params, x[:, :, ::-1, ::-1]).output[:, :, ::-1, ::-1]
    np.testing.assert_allclose(turned, module(params, x).output, rtol=1e-12)


def test_a_map_of_another_size_than_the_tables_is_refused():
    module = LambdaLayer(channels=4, feat_size=(3, 4))
    with pytest.raises(ValueError, match=r"expected a map of 3 × 4, for.* or set feat_size=\(4, 3\)"):
        module(module.init(), np.ones((2, 4, 4, 3)))


@pytest.mark.parametrize("shape", [(1, 5), (4, 1)])
def test_a_map_too_small_for_the_pool_is_refused(shape):
    module = LambdaLayer(channels=4, stride=2)
    with pytest.raises(ValueError, match="expected at least 2 × 2 positions"):
        module(module.init(), np.ones((2, 4, *shape)))


@for_each(
    ("options", "error", "message"),
    [
        ({"heads": 3}, ValueError, "heads=3; expected a divisor of channels=8"),
        ({"kernel_size": 4}, ValueError, "kernel_size=4; expected an odd number"),
        ({"kernel_size": None}, TypeError, "kernel_size=None is a NoneType; expected an int"),
        ({"feat_size": 7}, ValueError, "feat_size=7; expected None or a pair (height, width)"),
        ({"stride": 3}, ValueError, "stride=3; expected 1 or 2"),
        ({"qk_ratio": 0}, ValueError, "qk_ratio=0; expected a number above 0"),
        ({"key_channels": 0}, ValueError, "key_channels=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        LambdaLayer(8, **options)
    assert str(caught.value).startswith(f"LambdaLayer: {message}")
