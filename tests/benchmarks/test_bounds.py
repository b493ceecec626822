import importlib.util
import re
import threading

import numpy as np
import pytest

from npattn.fast import threads
from tests.benchmarks import bounds, compare, machine


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))
    monkeypatch.setattr(compare, "SHAPES", {})
    monkeypatch.setattr(bounds, "TILE", (6, 8))
    monkeypatch.setattr(machine, "PRODUCT", (64, 64, 64))
    monkeypatch.setattr(machine, "SIZE", 100_001)
    monkeypatch.setattr(machine, "REST", 0)


@pytest.mark.parametrize("key", bounds.KEYS)
def test_a_system_is_printed_with_the_sum_of_its_steps(key, tiny, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # without PyTorch
    monkeypatch.setattr(bounds, "count_steps", lambda *_: {"one": 0.25, "other": 0.5})
    bounds.main([key, "--repeats", "1"])
    head, *steps = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{key} +750\.0 ms  \d+ % of npattn's time", head)
    assert [step.split() for step in steps] == [["one", "250.0", "ms"], ["other", "500.0", "ms"]]


def test_beside_it_stand_the_ratios_to_pytorch(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(compare, "can_compile", lambda: False)
    monkeypatch.setattr(compare, "medians", lambda passes, _: {name: (0, 0, 2 + len(name)) for name in passes})
    monkeypatch.setattr(bounds, "count_steps", lambda *_: {"all": 4.5})
    bounds.main(["residual"])
    assert capsys.readouterr().out.splitlines()[0].endswith("  56 % of npattn's time, 0.50 of eager")
    bounds.main(["sdpa"])
    assert capsys.readouterr().out.splitlines()[0].endswith("  56 % of npattn's time, 0.50 of eager, 0.64 of fused")


def test_gates_take_their_passes_and_a_connection_two_more(tiny, monkeypatch):
    monkeypatch.setattr(bounds, "time_steps", lambda steps, _: dict.fromkeys(steps, 1.0))
    found = {key: sum(bounds.count_steps(key, None, (2, 4, 3, 3), 1, 1.0).values()) for key in bounds.PASSES}
    assert found == {"flexible": 5, "cbam-channel": 5, "residual": 7, "sge": 8, "shuffle": 10.75}


def test_steps_of_attention_count_by_logits_and_layers_by_their_flops(tiny, monkeypatch):
    monkeypatch.setattr(bounds, "time_steps", lambda steps, _: dict.fromkeys(steps, 1.0))
    monkeypatch.setattr(bounds, "num_threads", lambda: 2)
    module, shape = compare.make_module("mhsa"), (3, 16, 4, 4)
    steps = bounds.count_steps("mhsa", module, shape, 1, rate=2.0)
    logits = 3 * module.heads * 16 * 16
    assert steps.pop("layers") == 3 * (4 * 2 * 16 * 16**2) * 3 / 2.0  # forward, and twice that back
    assert steps == {name: n * logits / (2 * bounds.TIMES * 6 * 8) for name, n in bounds.ATTENTION.items()}


def test_steps_count_by_queries_and_keys_and_layers_by_images(tiny, monkeypatch):
    made, attention_steps = [], bounds.attention_steps
    monkeypatch.setattr(bounds, "attention_steps", lambda *sizes: made.append(sizes) or attention_steps(*sizes))
    monkeypatch.setattr(bounds, "time_steps", lambda steps, _: dict.fromkeys(steps, 1.0))
    monkeypatch.setattr(bounds, "num_threads", lambda: 2)
    module, shape = compare.make_module("sdpa"), (3, 16, 4, 5)
    steps = bounds.count_steps("sdpa", module, shape, 1, rate=2.0)
    each = 2 * bounds.TIMES
    assert steps["multiply"] == 3 * module.heads * 4 * 5 / (each * 6 * 8)
    module, shape = compare.make_module("bottleneck"), (3, 16, 6, 5)
    steps = bounds.count_steps("bottleneck", module, shape, 1, rate=2.0)
    assert [steps["multiply"], steps["add"]] == [n * 3 * module.heads / each for n in (2, 1)]  # a tile is a head
    assert [steps[name] for name in bounds.layer_steps(1, 1, 1)] == 3 * [3 / each]
    assert made == [(16, (6, 8)), (module.head_channels, (30, 30))]


def test_products_of_danet_take_their_flops_at_the_rate(tiny):
    steps = bounds.count_steps("danet", compare.make_module("danet"), (1, 16, 4, 4), 1, rate=1.0)
    twice = bounds.count_steps("danet", compare.make_module("danet"), (2, 16, 4, 4), 1, rate=2.0)
    assert steps == twice
    taps = (4 + 2 * 3) ** 2  # that lie on the map
    assert sum(steps.values()) > 3 * 2 * 2 * 16 * 4 * taps  # the first layer of both branches, forward and backward


def test_every_pass_covers_its_maps(tiny):
    shape = 2, 16, 6, 5
    for name, step in bounds.memory_passes(shape).items():
        variables = arrays_of(step)
        out = variables["sums"] if name in {"pool", "gradient of the gate"} else variables["out"]
        out[...] = np.nan if name != "add a pool's gradient" else 1
        step()
        sums = dict.fromkeys(("pool", "gradient of the gate"), 30)
        np.testing.assert_array_equal(out, (sums | {"gate": 1, "exponential": np.exp(np.float32(1))}).get(name, 2))


def arrays_of(step):
    """Find the arrays that a step works on."""
    work = step.__closure__[step.__code__.co_freevars.index("work")].cell_contents
    return dict(zip(work.__code__.co_freevars, (cell.cell_contents for cell in work.__closure__), strict=True))


@pytest.mark.parametrize("cores", [1, 3])
def test_every_core_takes_each_step_of_attention_many_times(cores, tiny, monkeypatch):
    monkeypatch.setattr(bounds, "num_threads", lambda: cores)
    monkeypatch.setattr(threads, "num_threads", lambda: cores)
    monkeypatch.setattr(bounds, "has_quick_powers_of_two", lambda: False)
    calls = []
    for owner, name in ((bounds, "multiply"), (np, "exp"), (np, "multiply")):
        whole = getattr(owner, name)

        def spy(*arguments, name=f"{owner.__name__}.{name}", whole=whole, **options):
            calls.append((name, threading.get_ident()))
            return whole(*arguments, **options)

        monkeypatch.setattr(owner, name, spy)
    for step in bounds.attention_steps(4, (6, 8)).values():
        step()
    names = [name for name, _ in calls]
    count = cores * bounds.TIMES
    assert {name: names.count(name) for name in set(names)} == {
        "tests.benchmarks.bounds.multiply": 3 * count,
        "numpy.exp": count,
        "numpy.multiply": count,
    }


def test_no_step_leaves_its_product_to_threads_of_blas(tiny, monkeypatch):
    monkeypatch.setattr(bounds.np, "matmul", None)
    multiplied = []
    monkeypatch.setattr(bounds, "multiply", lambda a, b, out: multiplied.append(out.shape))
    for name, step in (bounds.attention_steps(4, (6, 8)) | bounds.layer_steps(2, 3, 5)).items():
        multiplied.clear()
        step()
        assert bool(multiplied) is (name not in ("exponential", "multiply", "add"))


def test_the_first_run_of_a_step_does_not_count(monkeypatch):
    clock = iter([0, 9, 10, 12])
    monkeypatch.setattr(bounds.time, "perf_counter", lambda: next(clock))
    assert bounds.time_steps({"one": lambda: None}, repeats=1) == {"one": 2}


def test_an_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit):
        bounds.main(["se"])
    assert f"unknown system 'se'; there are {', '.join(bounds.KEYS)}" in capsys.readouterr().err
