"""What is asked before primitives take their ways ends with its block, whatever interrupts it."""

import asyncio
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npattn import ops
from npattn.ops.context import CONTEXT, apart, definitions, replaced, replacing
from tests.interrupts import interrupted_calls


def pass_on(*_):
    return NotImplemented


@pytest.fixture(autouse=True)
def before():
    """What holds around a test, before and after it."""
    held = CONTEXT.get()
    yield held
    assert CONTEXT.get() is held


def test_an_interrupt_as_a_block_is_entered_leaves_what_held_before(before):
    found = []

    @apart
    def enter():
        try:
            replacing(pass_on).__enter__()
        finally:
            found.append(CONTEXT.get())

    for _ in interrupted_calls(enter, ["call", "line"]):
        pass
    *interrupted, entered = found
    assert len(interrupted) > 5
    assert all(context is before for context in interrupted)
    assert entered.handlers == (*before.handlers, pass_on)


def test_an_interrupt_once_the_context_is_set_sets_it_back(before):
    met = []

    def interrupt(frame, event, _):
        frame.f_trace_opcodes = True
        if event == "opcode" and CONTEXT.get() is not before and not met:
            met.append(frame.f_code.co_name)
            raise KeyboardInterrupt
        return interrupt

    tracing = sys.gettrace()
    block = replacing(pass_on)
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            block.__enter__()
    finally:
        sys.settrace(tracing)
    assert met == ["__enter__"]
    assert CONTEXT.get() is before


def test_an_interrupt_that_keeps_a_block_from_being_left_is_mended_by_the_one_around(before):
    inside, left = False, 0

    def nest():
        nonlocal inside, left
        with replacing(pass_on):
            held = CONTEXT.get()
            inside = True
            try:
                with replacing(pass_on):
                    pass
            except KeyboardInterrupt:
                left += CONTEXT.get() is not held
                raise
            inside = False

    for _ in interrupted_calls(apart(nest), ["call", "line"]):
        assert CONTEXT.get() is before
    for _ in interrupted_calls(nest, ["call"]):
        assert not inside or CONTEXT.get() is before
        CONTEXT.set(before)
        inside = False
    assert left


def test_a_block_that_ends_late_changes_nothing(before):
    def keep():
        with replacing(pass_on):
            yield

    with replacing(pass_on):
        kept = keep()
        next(kept)
    assert CONTEXT.get() is before
    kept.close()
    assert CONTEXT.get() is before


def test_one_block_may_be_entered_within_itself():
    with replacing(pass_on):
        held = CONTEXT.get()
        block = definitions()
        with block:
            with block:
                pass
            assert CONTEXT.get().outer is held
        assert CONTEXT.get() is held


def test_one_block_may_be_entered_by_several_threads_or_tasks_at_a_time():
    both = threading.Barrier(2)

    @definitions()
    def decorated():
        both.wait(60)
        held = CONTEXT.get()
        both.wait(60)
        return held

    def call_first(change):
        with change:
            held = CONTEXT.get()
            inside = decorated()
            return inside.handlers == held.handlers and CONTEXT.get() is held

    async def enter_first(block, change):
        with change:
            held = CONTEXT.get()
            with block:
                await asyncio.sleep(0)
            return CONTEXT.get() is held

    async def enter_both(block):
        return await asyncio.gather(enter_first(block, replacing(max)), enter_first(block, replacing(min)))

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(call_first, [replacing(max), replacing(min)]))
    assert all(asyncio.run(enter_both(definitions())))


def test_what_is_replaced_for_a_call_holds_within_it_alone(before):
    assert replaced(pass_on, CONTEXT.get).handlers == (*before.handlers, pass_on)
    with replacing(max):
        assert replaced(pass_on, CONTEXT.get).handlers == (*before.handlers, max, pass_on)
    for _ in interrupted_calls(lambda: replaced(pass_on, CONTEXT.get), ["call", "line"]):
        assert CONTEXT.get() is before


def test_what_was_asked_is_dropped_as_soon_as_its_block_ends():
    class Watcher:
        def __call__(self, *_):
            return NotImplemented

    watcher = Watcher()
    there = weakref.ref(watcher)
    gc.disable()
    try:
        with replacing(pass_on), replacing(watcher):
            ops.relu(np.ones(1))
        del watcher
        assert there() is None
    finally:
        gc.enable()


def test_an_interrupt_while_somebody_is_asked_leaves_what_held_before(before):
    for _ in interrupted_calls(lambda: ops.relu(np.ones(1)), ["call", "line"]):
        assert CONTEXT.get() is before
    with replacing(pass_on):
        held = CONTEXT.get()
        for _ in interrupted_calls(lambda: ops.relu(np.ones(1)), ["call", "line"]):
            assert CONTEXT.get() is held


def test_a_block_decorates_functions_and_refuses_what_runs_after_its_call(before):
    def held():
        return CONTEXT.get()

    def generator():
        yield held()

    async def coroutine():
        return held()

    async def generate():
        yield held()

    assert held() is before
    assert replacing(pass_on)(held)().handlers == (*before.handlers, pass_on)
    for late in (generator, coroutine, generate):
        with pytest.raises(TypeError, match=rf"{late.__name__} is a generator or a coroutine, .* write the block as"):
            definitions()(late)
