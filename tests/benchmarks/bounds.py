"""What NumPy needs at least, beside what PyTorch takes, for the systems that stay behind a bound of the machine.

The bounds of `compare.py` are those of the machine: matrix products at their full rate, and every map moved as often as
the mathematics needs. NumPy cannot always reach them. It has no step that multiplies and adds, a product over the few
channels of a head, or the positions of one small map, is slower than one over many, an exponential takes as long as the
product to its logit, and a connection around a system can't see into it. Here each step that a system takes is timed
alone, on all cores, again and again on the same arrays, and their times are added up.

    python tests/benchmarks/bounds.py
    python tests/benchmarks/bounds.py mhsa --repeats 20
    python tests/benchmarks/bounds.py --avx2

prints for each system the sum of its steps, how much of the time that npattn takes that is, and its ratio to PyTorch's
eager, compiled and fused forms; then what every kind of step takes.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from npattn.fast.blas import multiply
from npattn.fast.blocks import blocks
from npattn.fast.machine import has_quick_powers_of_two
from npattn.fast.threads import num_threads, parallel_for

DTYPE = "float32"
TILE = 512, 768
"""Queries and keys of the tile in which the steps of attention are timed."""
TIMES = 16
"""How often each core takes a step on its tile, so that starting it counts for little."""


def time_steps(steps, repeats):
    """Time functions without arguments in turns: median seconds of each, by name."""
    times = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def memory_passes(shape):
    """Make the passes over maps: pool, gate, gradient of a gate, a pool's gradient or a map added, exponentials."""
    batch, channels, height, width = shape
    x, dy, out = (np.ones((batch, channels, height * width), DTYPE) for _ in range(3))
    gate, sums = np.ones((batch, channels, 1), DTYPE), np.empty((batch, channels), DTYPE)
    parts = blocks(x, 1)

    def passing(work):
        return lambda: parallel_for(work, parts)

    return {
        "pool": passing(lambda at: np.einsum("bcn->bc", x[at], out=sums[at])),
        "gate": passing(lambda at: np.multiply(x[at], gate[at], out=out[at])),
        "gradient of the gate": passing(lambda at: np.einsum("bcn,bcn->bc", dy[at], x[at], out=sums[at])),
        "add a pool's gradient": passing(lambda at: np.add(out[at], gate[at], out=out[at])),
        "add two maps": passing(lambda at: np.add(x[at], dy[at], out=out[at])),
        "exponential": passing(lambda at: np.exp(x[at], out=out[at])),
    }


def attention_steps(width, tile):
    """Make the steps of attention in a tile for every core, of heads of this many channels.

    Each core multiplies by itself: BLAS's own threads would wait for each other where all cores are taken.
    """
    queries, keys = tile
    cores = range(num_threads())
    q, k = np.ones((len(cores), width, queries), DTYPE), np.ones((len(cores), width, keys), DTYPE)
    logits, weights, other = (np.ones((len(cores), queries, keys), DTYPE) for _ in range(3))
    for_queries, for_keys = np.empty((len(cores), queries, width), DTYPE), np.empty((len(cores), width, keys), DTYPE)
    power = np.exp2 if has_quick_powers_of_two() else np.exp
    return {
        "product to logits": on_cores(lambda i: multiply(q[i].T, k[i], out=logits[i]), products=True),
        "product to queries": on_cores(lambda i: multiply(weights[i], k[i].T, out=for_queries[i]), products=True),
        "product to keys": on_cores(lambda i: multiply(q[i], weights[i], out=for_keys[i]), products=True),
        "exponential": on_cores(lambda i: power(weights[i], out=other[i])),
        "multiply": on_cores(lambda i: np.multiply(logits[i], weights[i], out=logits[i])),
        "add": on_cores(lambda i: np.add(logits[i], weights[i], out=logits[i])),
    }


def layer_steps(channels, out, positions):
    """Make the products of a layer, and of its gradients, on a map for every core."""
    cores, weight = num_threads(), np.ones((out, channels), DTYPE)
    x, y = (np.ones((cores, count, positions), DTYPE) for count in (channels, out))
    dx, dweight = np.empty_like(x), np.empty((cores, *weight.shape), DTYPE)
    return {
        "layer": on_cores(lambda i: multiply(weight, x[i], out=y[i]), products=True),
        "layer's gradient": on_cores(lambda i: multiply(weight.T, y[i], out=dx[i]), products=True),
        "gradient of its kernels": on_cores(lambda i: multiply(y[i], x[i].T, out=dweight[i]), products=True),
    }


def on_cores(work, products=False):
    """Return a function that has every core take a step again and again: ``work(core)``."""

    def work_again(core):
        for _ in range(TIMES):
            work(core)

    return lambda: parallel_for(work_again, range(num_threads()), products=products)


GATE = {"pool": 1, "gate": 2, "gradient of the gate": 1, "add a pool's gradient": 1}
PASSES = {
    "flexible": GATE,
    "cbam-channel": GATE,
    "residual": GATE | {"add two maps": 2},
    "sge": {"pool": 3, "gate": 2, "add two maps": 2, "add a pool's gradient": 1},
    "shuffle": {
        **{"pool": 0.5, "gate": 5.25, "gradient of the gate": 0.5, "add two maps": 3.5},
        **{"add a pool's gradient": 0.5, "exponential": 0.5},
    },
}
"""Passes over maps that systems take, forward and backward. Both pools of `flexible` and `cbam-channel` share one.

What reads one map and writes one counts as a gate, what reads two and writes one as two maps added. All that is done
with a block while it is in the cache counts as one. In `shuffle` either half of the map has steps of its own, which
count half; forward the halves are joined and shuffled at once, backward shuffled and cut, and joined at last."""
ATTENTION = {
    "product to logits": 3,
    "product to queries": 2,
    "product to keys": 2,
    "exponential": 2,
    "multiply": 1,
}
"""Steps for a logit: forward 2 products and the exponential; backward 5 products, the exponential, one by the other.

Where heads are narrow the products sum the weights too, and take off what is to be taken off; where logits are small no
maximum is sought. In `bottleneck` forward divides the weights by the totals and keeps them: backward has no logits to
make. Its logits by offset are added once, and cost more, which is left out."""


def count_steps(key, module, shape, repeats, rate):
    """Return what each kind of step of a system takes in all, in seconds."""
    from tests.benchmarks.work import count_work

    if key in PASSES:
        times = time_steps(memory_passes(shape), repeats)
        return {name: count * times[name] for name, count in PASSES[key].items()}
    if key == "danet":
        return {"products at the machine's rate": sum(part[0] for part in count_work(module, shape)) / rate}
    batch, channels, height, width = shape
    n, each = height * width, num_threads() * TIMES
    if key == "sdpa":  # of height queries and width keys
        return attention_times(module.head_dim, TILE, batch * module.heads * n, ATTENTION, repeats)
    if key == "bottleneck":
        times = time_steps(layer_steps(channels, sum(module.sizes), n), repeats)
        layers = {name: batch * seconds / each for name, seconds in times.items()}
        counts = ATTENTION | {"product to logits": 2, "exponential": 1, "multiply": 2, "add": 1}
        return attention_times(module.head_channels, (n, n), batch * module.heads * n**2, counts, repeats) | layers
    layers = 3 * 8 * batch * n * channels**2
    logits = batch * module.heads * n**2
    return attention_times(channels // module.heads, TILE, logits, ATTENTION, repeats) | {"layers": layers / rate}


def attention_times(width, tile, logits, counts, repeats):
    """Return what the steps of attention take for so many logits, in seconds."""
    times = time_steps(attention_steps(width, tile), repeats)
    steps = logits / (num_threads() * TIMES * tile[0] * tile[1])
    return {name: count * steps * times[name] for name, count in counts.items()}


KEYS = *PASSES, "mhsa", "sdpa", "bottleneck", "danet"


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help=f"of {', '.join(KEYS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each, in turns (default: 9)")
    parser.add_argument("--avx2", action="store_true", help="let no library use wider vectors than AVX2's")
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in KEYS:
            parser.error(f"unknown system {key!r}; there are {', '.join(KEYS)}")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.benchmarks import compare
    from tests.benchmarks.machine import Machine, is_limited_to_avx2, limit_to_avx2

    if arguments.avx2:
        limit_to_avx2()
    names = ["npattn"]
    if importlib.util.find_spec("torch"):
        names += ["pytorch", *(["compiled"] if not is_limited_to_avx2() and compare.can_compile() else [])]
    machine = Machine(DTYPE)
    for key in arguments.keys or KEYS:
        rate, _ = machine.rates(arguments.repeats)
        forms = names + ["fused"] * (len(names) > 1 and hasattr(compare.tests_of(key), "fused"))
        passes = {name: compare.IMPLEMENTATIONS[name](key) for name in forms}
        found = {name: both for name, (*_, both) in compare.medians(passes, arguments.repeats).items()}
        module, shape = compare.make_module(key), compare.shape_of(key)
        steps = count_steps(key, module, shape, arguments.repeats, rate)
        least = sum(steps.values())
        shares = [f"{100 * least / found['npattn']:.0f} % of npattn's time"]
        shares += [f"{least / found[name]:.2f} of {compare.FORMS[name]}" for name in forms[1:]]
        print(f"{key:<14}{1e3 * least:8.1f} ms  {', '.join(shares)}")
        for name, seconds in steps.items():
            print(f"  {name:<32}{1e3 * seconds:8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
