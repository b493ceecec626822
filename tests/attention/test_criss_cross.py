import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import CrissCrossAttention, PositionAttention
from npattn.oracle import generic_values
from tests.attention.parity import (
    assert_parity_in,
    assert_runs,
    assert_starts_as,
    assert_starts_as_identity,
    assert_state_dict_loads,
)
from tests.memory import peak_memory
from tests.strategies import cases, criss_cross_modules, seeds


def published(module):
    """The PyTorch form with the names of the authors' code, which masks a position where it meets itself again."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query_conv = torch.nn.Conv2d(module.channels, module.key_channels, 1)
            self.key_conv = torch.nn.Conv2d(module.channels, module.key_channels, 1)
            self.value_conv = torch.nn.Conv2d(module.channels, module.channels, 1)
            self.gamma = torch.nn.Parameter(torch.zeros(1))

        def attend(self, x):
            height, rows, columns = x.shape[2], (0, 2, 3, 1), (0, 3, 2, 1)
            q, k, v = self.query_conv(x), self.key_conv(x), self.value_conv(x)
            in_row = q.permute(rows) @ k.permute(0, 2, 1, 3)
            mask = torch.full((height,), -torch.inf, dtype=x.dtype).diag()
            in_column = q.permute(columns) @ k.permute(0, 3, 1, 2) + mask
            weights = torch.cat([in_column.transpose(1, 2), in_row], dim=3).softmax(dim=3)
            by_column = weights[..., :height].transpose(1, 2) @ v.permute(columns)
            by_row = weights[..., height:] @ v.permute(rows)
            return self.gamma * (by_column.permute(0, 3, 2, 1) + by_row.permute(0, 3, 1, 2)) + x

        def forward(self, x):
            for _ in range(module.recurrence):
                x = self.attend(x)
            return x

    return Reference()


@given(cases(criss_cross_modules()), seeds)
@settings(max_examples=30)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=0.1)  # the keys' bias has gradient 0


def test_a_published_state_dict_loads_unchanged():
    module = CrissCrossAttention(channels=24)
    reference = published(module)
    reference.gamma.data.fill_(0.7)
    assert_state_dict_loads(module, reference, atol=1e-5)


def test_training_starts_where_pytorch_starts():
    assert_starts_as(CrissCrossAttention(channels=512, reduction=4), published)


def test_at_the_start_the_map_passes_as_it_is_and_only_the_scale_learns():
    assert_starts_as_identity(CrissCrossAttention.example())


@given(cases(criss_cross_modules()), st.data())
@settings(max_examples=25)
def test_attention_map_is_what_the_last_time_adds(case, data):
    module, params, inputs = case
    s, positions = module.attention_map(params, inputs["x"]), inputs["x"].shape[2] * inputs["x"].shape[3]
    before = inputs["x"]
    if module.recurrence > 1:
        before = CrissCrossAttention(module.channels, module.reduction, module.recurrence - 1)(params, before).output
    np.testing.assert_allclose(s.sum(axis=2), 1, rtol=1e-12)
    values = np.einsum("oc,bcn->bon", params["value_conv.weight"][:, :, 0, 0], before.reshape(*before.shape[:2], -1))
    values += params["value_conv.bias"][:, None]
    expected = before + params["gamma"] * np.einsum("bji,bci->bcj", s, values).reshape(before.shape)
    np.testing.assert_allclose(module(params, inputs["x"]).output, expected, rtol=1e-10, atol=1e-11)
    rows = data.draw(st.lists(st.integers(0, positions - 1), max_size=4))
    np.testing.assert_allclose(module.attention_map(params, inputs["x"], rows), s[:, rows], rtol=1e-12)


def reached(recurrence):
    """Tell which numbers of the input the output in row 1, column 2 depends on."""
    module = CrissCrossAttention(channels=3, reduction=1, recurrence=recurrence)
    params, inputs = generic_values(module, batch=1, height=4, width=5)
    dy = np.zeros((1, 3, 4, 5))
    dy[:, :, 1, 2] = 1
    dx, _ = module(params, inputs["x"]).backward(dy)
    return (dx[0] != 0).all(axis=0)


def test_one_time_reaches_a_row_and_a_column_and_two_times_reach_the_map():
    expected = np.zeros((4, 5), bool)
    expected[1], expected[:, 2] = True, True
    np.testing.assert_array_equal(reached(1), expected)
    assert reached(2).all()


@given(cases(criss_cross_modules()))
@settings(max_examples=25)
def test_exchanging_rows_and_columns_of_the_map_exchanges_those_of_the_output(case):
    module, params, inputs = case
    turned = module(params, inputs["x"].swapaxes(2, 3)).output
    np.testing.assert_allclose(turned, module(params, inputs["x"]).output.swapaxes(2, 3), rtol=1e-9, atol=1e-10)


@given(cases(criss_cross_modules()), seeds)
@settings(max_examples=25)
def test_rows_may_be_rearranged_and_columns_too(case, seed):
    module, params, inputs = case
    random = np.random.RandomState(seed)
    down, across = (random.permutation(inputs["x"].shape[axis]) for axis in (2, 3))
    moved = module(params, inputs["x"][:, :, down][..., across]).output
    np.testing.assert_allclose(
        moved, module(params, inputs["x"]).output[:, :, down][..., across], rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("shape", [(1, 7), (7, 1)])
def test_on_one_row_or_one_column_it_is_position_attention(shape):
    module = CrissCrossAttention(channels=6, reduction=2, recurrence=1)
    params, inputs = generic_values(module, batch=2, height=shape[0], width=shape[1])
    run, expected = (one(params, inputs["x"]) for one in (module, PositionAttention(6, 2)))
    np.testing.assert_allclose(run.output, expected.output, rtol=1e-12)
    np.testing.assert_allclose(run.backward(run.output)[0], expected.backward(run.output)[0], rtol=1e-10)


@given(cases(criss_cross_modules()))
@settings(max_examples=25)
def test_several_times_are_one_time_behind_the_other(case):
    module, params, inputs = case
    once, y = CrissCrossAttention(module.channels, module.reduction, 1), inputs["x"]
    for _ in range(module.recurrence):
        y = once(params, y).output
    np.testing.assert_array_equal(module(params, inputs["x"]).output, y)


def test_huge_logits_pick_the_value_of_the_best_match_in_row_and_column():
    module = CrissCrossAttention(channels=8, recurrence=1)
    params, inputs = generic_values(module)
    x = 1e4 * inputs["x"]
    best = module.attention_map(params, x)
    np.testing.assert_allclose(best.max(axis=2), 1, rtol=1e-12)
    run = module(params, x)
    dx, grads = run.backward(np.ones_like(x))
    assert all(np.isfinite(a).all() for a in (run.output, dx, *grads.values()))


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 2)])
def test_a_single_position_and_an_empty_batch_run(shape):
    batch, height, width = shape
    module = CrissCrossAttention(channels=1)
    params, x = assert_runs(module, batch, height, width)
    assert module.attention_map(params, x).shape == (batch, height * width, height * width)


def test_the_weights_of_all_pairs_are_never_made():
    module = CrissCrossAttention(channels=8, recurrence=1)
    params, inputs = generic_values(module, batch=1, height=64, width=64)

    def both():
        module.forward(params, inputs["x"]).backward(inputs["x"])

    assert peak_memory(both) < 4096**2 * 8 / 5
    peak = peak_memory(lambda: module.attention_map(params, inputs["x"], rows=[7, 4000]))
    assert peak < 4096**2 * 8 / 100


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recurrence": 0}, ValueError, "CrissCrossAttention: recurrence=0; expected an integer of at least 1"),
        ({"recurrence": 1.5}, TypeError, "CrissCrossAttention: recurrence=1.5"),
        ({"reduction": 0}, ValueError, "CrissCrossAttention: reduction=0"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        CrissCrossAttention(8, **options)
    assert str(caught.value).startswith(message)


def test_bad_rows_are_refused_with_a_reason():
    module = CrissCrossAttention.example()
    params, inputs = generic_values(module, height=7, width=5)
    with pytest.raises(ValueError, match=r"attention_map: rows holds 35; expected positions from 0 to 34"):
        module.attention_map(params, inputs["x"], [35])
