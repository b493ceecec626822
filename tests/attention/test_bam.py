import numpy as np
import pytest
from hypothesis import given, settings

from npattn import BAM
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_starts_as, assert_state_dict_loads
from tests.memory import peak_of_pass
from tests.strategies import bam_modules, cases, seeds


def published(module):
    """The module in PyTorch, with the names of the authors' code; `variant="paper"` adds where that code multiplies."""
    torch = pytest.importorskip("torch")
    hidden, dilation = module.hidden_channels, module.dilation

    class Channel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_c = torch.nn.Sequential()
            self.gate_c.add_module("gate_c_fc_0", torch.nn.Linear(module.channels, hidden))
            self.gate_c.add_module("gate_c_bn_1", torch.nn.BatchNorm1d(hidden))
            self.gate_c.add_module("gate_c_relu_1", torch.nn.ReLU())
            self.gate_c.add_module("gate_c_fc_final", torch.nn.Linear(hidden, module.channels))

    class Spatial(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_s = torch.nn.Sequential()
            far = {"kernel_size": 3, "padding": dilation, "dilation": dilation}
            for name, inputs, options in (
                ("reduce0", module.channels, {"kernel_size": 1}),
                ("di_0", hidden, far),
                ("di_1", hidden, far),
            ):
                self.gate_s.add_module(f"gate_s_conv_{name}", torch.nn.Conv2d(inputs, hidden, **options))
                self.gate_s.add_module(f"gate_s_bn_{name}", torch.nn.BatchNorm2d(hidden))
                self.gate_s.add_module(f"gate_s_relu_{name}", torch.nn.ReLU())
            self.gate_s.add_module("gate_s_conv_final", torch.nn.Conv2d(hidden, 1, 1))

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.channel_att, self.spatial_att = Channel(), Spatial()

        def forward(self, x):
            of_channels = self.channel_att.gate_c(x.mean((2, 3)))[:, :, None, None]
            of_positions = self.spatial_att.gate_s(x)
            logits = of_channels * of_positions if module.variant == "code" else of_channels + of_positions
            return x * (1 + torch.sigmoid(logits))

    return Reference().train(module.training)


@given(cases(bam_modules() | bam_modules(training=True)), seeds)
@settings(max_examples=30)
def test_output_gradients_and_running_statistics_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=1)  # norms of few numbers


def test_a_published_state_dict_loads_unchanged():
    module = BAM(channels=12, reduction=4)
    assert_state_dict_loads(module, published(module).eval())


def test_training_starts_from_the_values_that_pytorch_draws():
    assert_starts_as(BAM(channels=96, reduction=4), published)


def test_the_product_is_blind_to_a_common_change_of_sign_and_the_sum_is_not():
    params, inputs = generic_values(BAM(channels=6, reduction=2))
    names = [f"{name}.{word}" for name in LAST for word in ("weight", "bias")]
    turned = params | {name: -params[name] for name in names}
    for variant, same in (("code", True), ("paper", False)):
        module = BAM(channels=6, reduction=2, variant=variant)
        outputs = [module(values, inputs["x"]).output for values in (params, turned)]
        assert np.allclose(*outputs, rtol=1e-13) is same


LAST = "channel_att.gate_c.gate_c_fc_final", "spatial_att.gate_s.gate_s_conv_final"


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_every_number_is_passed_at_least_once_and_at_most_twice(variant):
    module = BAM(channels=6, reduction=2, variant=variant)
    params, inputs = generic_values(module)
    factor = module(params, inputs["x"]).output / inputs["x"]
    assert (factor > 1).all()
    assert (factor < 2).all()


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_positions_logit_depends_on_those_that_two_dilated_kernels_reach(dilation):
    module = BAM(channels=3, reduction=1, dilation=dilation)
    params, inputs = generic_values(module, batch=1, height=13, width=13)
    before = module(params, inputs["x"]).attention["spatial_branch"][0, 0]
    moved = inputs["x"].copy()
    moved[:, :, 6, 6] += 10
    rows, columns = np.nonzero(module(params, moved).attention["spatial_branch"][0, 0] != before)
    offsets = {int(offset) - 6 for offset in (*rows, *columns)}
    assert offsets <= {dilation * step for step in range(-2, 3)}
    assert max(offsets) == 2 * dilation


def test_in_training_a_single_image_is_refused():
    module = BAM(channels=4, training=True)
    with pytest.raises(ValueError, match="expected at least two images: in training batch norm behind the pool"):
        module(module.init(), np.ones((1, 4, 5, 5)))


def test_both_passes_hold_eight_maps_at_most():
    assert peak_of_pass(BAM(channels=128), 64) < 8 * 128 * 64 * 64 * 4
