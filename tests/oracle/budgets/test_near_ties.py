import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results, observe, run_on, worst_limit
from npattn.oracle.budgets.near_ties import (
    FLIP_GROUPS,
    FLIP_ROUNDS,
    NEAR_TIE_DEVIATIONS,
    FlippedSelections,
)
from npattn.oracle.formats import FLOAT64, representable
from npattn.oracle.rounding import Rounding, RoundingArray, Selections
from tests.oracle.budgets.runs import BFLOAT16, exact_margins, measured, near_a_kink, prepared


def test_exact_results_are_those_of_float64():
    module = npattn.PositionAttention(4)
    values, observed = prepared(module)
    expected = named_results(module, values)
    for name, value in observed.expected.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_is_compared_is_recorded_in_order():
    module = npattn.SqueezeExcitation(8, 2)
    values, _ = prepared(module)
    (margin,) = exact_margins(module, values)
    p = values.inputs["x"].mean(axis=(2, 3))
    hidden = p @ values.params["fc1.weight"][:, :, 0, 0].T + values.params["fc1.bias"]
    np.testing.assert_allclose(margin, hidden, rtol=1e-9)


@pytest.mark.parametrize("compares", [False, True])
def test_a_backward_pass_that_compares_nothing_is_left_out_of_the_run_that_sees_what_is_compared(compares):
    formats = []

    class Rectified(npattn.Module):
        channels = 3

        def forward(self, params, x):
            positive = x > 0

            def backward(dy):
                formats.append(dy.rounding.format if isinstance(dy, RoundingArray) else None)
                return np.where(dy > 0 if compares else positive, dy, 0), {}

            return npattn.Pass(np.where(positive, x, 0), backward)

    _, observed = prepared(Rectified())
    assert len(observed.events) == 1 + compares
    assert formats == [*[FLOAT64, BFLOAT16][: 1 + compares], None]


@pytest.mark.parametrize("more", [False, True])
def test_where_there_are_more_near_ties_than_are_allowed_nothing_is_expected(more):
    module = npattn.SqueezeExcitation(64, 1)
    values, observed = prepared(module)
    found = observe(module, values, BFLOAT16, 0, most_ties=observed.near_ties - more)
    assert observed.near_ties
    assert list(found.expected) == ([] if more else list(observed.expected))


@given(st.integers(0, 30))
@settings(max_examples=10)
def test_noise_of_what_is_compared_is_of_the_size_of_its_rounding(seed):
    module = npattn.SqueezeExcitation(8, 2)
    values, observed = prepared(module, seed)
    (event,), (margin,) = observed.events, exact_margins(module, values)
    size = np.sqrt(np.mean(margin**2))
    assert BFLOAT16.unit_roundoff / 8 < event.noise / size < 16 * BFLOAT16.unit_roundoff


def test_a_tie_within_the_noise_is_near_and_one_far_off_is_not():
    assert near_a_kink(0.0)[2].near_ties > 0
    assert near_a_kink(3.0)[2].near_ties < near_a_kink(0.0)[2].near_ties + 1
    assert prepared(npattn.EfficientChannelAttention(8))[1].near_ties == 0


def test_a_kernel_that_flips_a_near_tie_is_within_its_budgets():
    module, values, observed = near_a_kink(0.0)
    (margin,) = exact_margins(module, values)
    budget = measured(observed, module, values, BFLOAT16)

    class Flipped(Selections):
        def compare(self, left, right, ordering):
            found = super().compare(left, right, ordering)
            near = np.abs(margin) == np.abs(margin).min()
            assert (np.abs(margin)[near] < NEAR_TIE_DEVIATIONS * observed.events[0].noise).all()
            return found ^ near

    found = run_on(Rounding(FLOAT64, selections=Flipped()), module, values)
    for name, value in observed.expected.items():
        assert (
            np.abs(found[name] - value) <= worst_limit(value.size, budget[name].freedom) * budget[name].scale
        ).all(), name


def test_a_kernel_that_flips_a_clear_case_is_not():
    module, values, observed = near_a_kink(0.0)
    budget = measured(observed, module, values, BFLOAT16)

    class Flipped(Selections):
        def compare(self, left, right, ordering):
            found = super().compare(left, right, ordering)
            found[np.unravel_index(np.abs(left).argmax(), left.shape)] ^= True
            return found

    found = run_on(Rounding(FLOAT64, selections=Flipped()), module, values)
    outside = [
        (np.abs(found[name] - value) > worst_limit(value.size, budget[name].freedom) * budget[name].scale).any()
        for name, value in observed.expected.items()
    ]
    assert any(outside)


@pytest.mark.parametrize("count", [5, 64, 1000])
def test_each_near_tie_is_flipped_once_a_round_and_no_two_of_a_block_always_together(count):
    _, observed = prepared(npattn.SqueezeExcitation(8, 2))
    turns = np.array(
        [FlippedSelections(observed, 0, number).deal(count) for number in range(FLIP_ROUNDS * FLIP_GROUPS)]
    ).reshape(FLIP_ROUNDS, FLIP_GROUPS, count)
    np.testing.assert_array_equal(turns.sum(axis=1), 1)
    block = turns[:, :, : FLIP_GROUPS**FLIP_ROUNDS]
    together = np.einsum("rpi,rpj->ij", block.astype(int), block.astype(int))
    assert (together[~np.eye(len(together), dtype=bool)] < FLIP_ROUNDS).all()


def test_equal_numbers_that_no_rounding_moves_are_never_flipped():
    module = npattn.FlexibleAttention(4, 2)
    params, inputs = generic_values(module)
    inputs = {"x": np.rint(inputs["x"])}
    values = Given(params, inputs, {"output": np.ones(inputs["x"].shape)}).each(lambda a: representable(a, BFLOAT16))
    observed = observe(module, values, BFLOAT16, 0)
    flipped = FlippedSelections(observed, 0, 0)
    position = next(i for i, event in enumerate(observed.events) if len(event.shape) == 3)
    for _ in range(position):
        next(flipped.events)
    flat = inputs["x"].reshape(2, 4, -1)
    np.testing.assert_array_equal(flipped.winners(flat, 2)[..., 0], flat.argmax(axis=2))


def test_the_numbers_of_near_ties_cross_over_in_their_run_and_no_others_move():
    module, values, observed = near_a_kink(0.0)
    (margin,), noise = exact_margins(module, values), observed.events[0].noise
    near = np.abs(margin) < NEAR_TIE_DEVIATIONS * noise
    assert near.any()
    crossed = np.zeros(margin.shape, int)
    for group in range(FLIP_GROUPS):
        moved = margin.copy()
        found = FlippedSelections(observed, 0, group).compare(moved, 0, np.less_equal)
        crossed += found != (margin <= 0)
        np.testing.assert_array_equal(found != (margin <= 0), moved != margin)
        assert (np.abs(moved - margin)[moved != margin] >= NEAR_TIE_DEVIATIONS * noise).all()
    np.testing.assert_array_equal(crossed, near)


class Fragile(npattn.SqueezeExcitation):
    """A system that fails in one of its runs, after something was compared."""

    def forward(self, params, x):
        run = super().forward(params, x)
        if (x.dtype == np.float32) == self.in_format and isinstance(x, RoundingArray):
            raise RuntimeError("out of luck")
        return run


@pytest.mark.parametrize("in_format", [True, False])
def test_a_run_that_fails_ends_the_one_beside_it(in_format, monkeypatch):
    monkeypatch.setattr(Fragile, "in_format", in_format, raising=False)
    with pytest.raises(RuntimeError, match="out of luck"):
        prepared(Fragile(8, 2))


def test_of_what_is_compared_near_ties_alone_are_kept():
    module = npattn.PixelCorrelation(channels=3, embedding=8)
    values, observed = prepared(module, height=20, width=20)
    kept = sum(event.near.nbytes + event.margins.nbytes for event in observed.events)
    margins = exact_margins(module, values)
    assert observed.near_ties == sum(event.near.size for event in observed.events) > 0
    assert [event.shape for event in observed.events] == [margin.shape for margin in margins]
    for event, margin in zip(observed.events, margins, strict=True):
        np.testing.assert_array_equal(event.near, np.flatnonzero(np.abs(margin) < NEAR_TIE_DEVIATIONS * event.noise))
        np.testing.assert_array_equal(event.margins, margin.flat[event.near])
    assert kept < sum(margin.nbytes for margin in margins) / 2
