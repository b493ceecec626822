"""A trace leaves nothing behind, and nothing that goes on beside it gets into it."""

import bdb
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.module import Pass
from npattn.ops.context import CONTEXT, replacing
from npattn.oracle import generic_values
from npattn.tracing import trace
from npattn.tracing.recording import RECORDING
from tests.tracing import own

X = np.array([[[[1.0, 2.0]], [[3.0, -4.0]]]])


@pytest.mark.parametrize("system", [own.Failing, own.FailingBackward])
def test_an_error_on_the_way_leaves_nothing_behind(system):
    before = CONTEXT.get(), sys.gettrace(), dict(vars(system)), threading.active_count()
    module = system()
    if system.where == "forward":
        with pytest.raises(ZeroDivisionError):
            trace(module, {}, X)
    else:
        steps = trace(module, {}, X)
        with pytest.raises(ZeroDivisionError):
            steps.backward(X)
        assert [step.path for step in steps.steps] == ["(1) y"]
    assert RECORDING.get() is None
    assert (CONTEXT.get(), sys.gettrace(), dict(vars(system)), threading.active_count()) == before


def test_an_error_shows_the_line_of_the_text():
    with pytest.raises(ZeroDivisionError) as raised:
        trace(own.Failing(), {}, X)
    last = raised.traceback[-1]
    assert str(last.path) == own.__file__
    assert str(last.statement).strip() == "raise ZeroDivisionError"
    assert last.name == "forward"


def test_classes_are_as_they_were():
    before = {system: dict(vars(system)) for system in npattn.CATALOGUE.values()}
    module = npattn.CBAM.example()
    params, inputs = generic_values(module)
    trace(module, params, *inputs.values()).backward(inputs["x"])
    assert {system: dict(vars(system)) for system in npattn.CATALOGUE.values()} == before


def test_two_threads_trace_different_passes_at_once():
    barrier = threading.Barrier(2, timeout=300)
    module = own.Meeting(2, barrier.wait)

    def run(factor):
        steps = trace(module, {}, factor * X)
        steps.backward(factor * np.ones_like(X))
        return steps

    with ThreadPoolExecutor(2) as pool:
        for factor, steps in zip((1, 10), pool.map(run, (1, 10)), strict=True):
            assert [step.path for step in steps.steps] == ["(1) r", "(2) y", "(2') dr", "(1') dx"]
            np.testing.assert_array_equal(steps["(1) r"].value, np.maximum(factor * X, 0))
            np.testing.assert_array_equal(steps["(2') dr"].value, np.full_like(X, 2 * factor))


def test_two_threads_go_back_through_one_trace():
    module = npattn.CBAM.example()
    params, inputs = generic_values(module)
    steps = trace(module, params, inputs["x"])
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda factor: steps.backward(factor * inputs["x"])[0], (1, 2)))
    assert len(steps.backward_passes) == 2
    np.testing.assert_allclose(results[1], 2 * results[0], rtol=1e-12)
    for back in steps.backward_passes:
        assert [step.path for step in back.steps] == [step.path for step in steps.backward_passes[0].steps]
        np.testing.assert_array_equal(back.steps[-5].value, back.dx)  # (15') dx, before four gradients


def test_other_passes_in_a_trace_are_not_recorded():
    other = npattn.EfficientChannelAttention(2)
    beside = other(other.init(), X), trace(other, other.init(), X).run

    class Using(own.Own):
        def forward(self, params, x):
            y, back = ops.relu(x)  # (1)
            for run in beside:
                run.backward(x)
            within.append(trace(other, other.init(), x))
            return Pass(y, lambda dy: (back(dy), {}))

    within = []
    steps = trace(Using(), {}, X)
    assert [step.path for step in steps.steps] == ["(1) y"]
    assert [step.path for step in within[0].steps] == ["(1) p", "(2) z", "(3) a", "(4) y"]


def test_the_pass_of_a_trace_goes_back_by_itself_without_a_step():
    module = own.Untagged()
    steps = trace(module, {}, X)
    dx, _ = steps.run.backward(X)
    assert steps.steps == steps.forward_steps
    np.testing.assert_array_equal(steps.backward(X)[0], dx)
    other = trace(module, {}, X)
    count = len(other.steps)
    steps.run.backward(X)
    assert len(other.steps) == count


def test_whoever_replaces_primitives_does_so_in_a_trace():
    def without_sigmoid(primitive, arguments, options):
        return (arguments[0] + 100, lambda dy: dy) if primitive is ops.sigmoid else NotImplemented

    for module in (npattn.EfficientChannelAttention(2), own.Untagged()):
        with replacing(without_sigmoid):
            steps = trace(module, module.init(), X)
        assert next(step.value for step in steps.steps if step.line.endswith(("sigmoid(z)", "sigmoid(p)"))).min() > 50


def lines_of(function):
    lines, first = inspect.getsourcelines(function)
    return range(first, first + len(lines))


def test_debuggers_and_coverage_see_the_lines_of_a_system_as_ever():
    forward = npattn.EfficientChannelAttention.forward
    file, module = inspect.getsourcefile(forward), npattn.EfficientChannelAttention(2)
    params = module.init()

    def seen(run):
        lines = set()

        def watch(frame, event, _):
            if frame.f_code.co_filename != file:
                return None
            if event == "line":
                lines.add(frame.f_lineno)
            return watch

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            run()
            assert sys.gettrace() is watch
        finally:
            sys.settrace(before)
        return lines & {*lines_of(forward)}

    plain = seen(lambda: module(params, X).backward(X))
    assert len(plain) >= 10
    assert seen(lambda: trace(module, params, X).backward(X)) == plain


class Stops(bdb.Bdb):
    """A debugger that goes on at every stop, and notes the variables that it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def user_line(self, frame):
        self.seen.append((frame.f_lineno, "a" in frame.f_locals, "y" in frame.f_locals))
        self.set_continue()


def test_a_breakpoint_in_a_system_stops_a_trace_and_no_step_is_lost():
    forward = npattn.EfficientChannelAttention.forward
    lines, first = inspect.getsourcelines(forward)
    line = next(i for i, text in enumerate(lines) if text.rstrip().endswith("# (4)")) + first
    module = npattn.EfficientChannelAttention(2)
    params, debugger, before = module.init(), Stops(), sys.gettrace()
    debugger.set_break(inspect.getsourcefile(forward), line)
    try:
        steps = debugger.runcall(trace, module, params, X)
    finally:
        sys.settrace(before)
    assert (line, True, False) in debugger.seen
    assert [step.path for step in steps.steps] == ["(1) p", "(2) z", "(3) a", "(4) y"]
