"""How good a judge golden cases are: do correct kernels pass, and are planted faults caught?

Over all systems, formats and several shapes, correct kernels (`kernels.py`: PyTorch and NumPy, at once in float32 or
one rounded operation at a time, in several orders of summation) and faulty ones (`faults`: a mistake in one step)
are judged by `Case.compare`, by fixed tolerances, and by the rule that a kernel may be off by twice what the plain
low-precision computation is.

    python tests/benchmarks/judge.py
    python tests/benchmarks/judge.py se eca --seeds 5
    python tests/benchmarks/judge.py --quick
    python tests/benchmarks/judge.py --faults pam
    python tests/benchmarks/judge.py --cuda

A fault can be seen in a format if, computed exactly, it moves some result by at least `VISIBLE` times the errors that
plain correct kernels themselves make there: in root mean square over the tensor, or in its largest error. The errors
are the largest of those of `kernels.PLAIN` and of the reference with every operation rounded stochastically, over all
seeds of a shape and several upstream gradients for each: a gradient of few numbers may be right by luck, and a near tie
fall as it should. No budget and no limit enters.

Held out are kernels and faults (`HELD_OUT` of those two) and cases (`held_out_cases`: hyperparameters, shapes,
large values and ties) on which no limit of the judge was tuned; the table has them apart.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import sys
import textwrap
import time
import traceback
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests

import npattn
from npattn.oracle import generic_values, golden
from npattn.oracle import mistakes as faults
from npattn.oracle.formats import representable, ulp
from npattn.oracle.rounding import Rounding
from tests.benchmarks import kernels
from tests.benchmarks.masked import MASKINGS, MaskedAttention

SYSTEMS = npattn.CATALOGUE | {MaskedAttention.key: MaskedAttention}
"""Those of the catalogue, and one as users bring them."""
FORMATS = "bfloat16", "float16", "float32"
SHAPES = (2, 7, 5), (1, 13, 11), (2, 1, 1), (3, 5, 9)
"""Images, height and width of the cases of every system's example."""
VARIANT_SHAPES = SHAPES[::3]
"""Those of the cases of its variants."""
HELD_OUT_SHAPES = (4, 9, 9), (2, 10, 10)
"""Those that are held out: square maps, of which the last tile holds one position or four."""
VISIBLE = 4.0
"""How many times the errors of correct kernels a fault must move a result to be seen."""
UPSTREAM = 6
"""Upstream gradients, besides the case's own, with which the errors of plain correct kernels are measured."""
TOLERANCES = {"bfloat16": (1.6e-2, 1e-5), "float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5)}
"""Relative and absolute tolerance of PyTorch's assert_close: its defaults."""
RULES = {
    "golden case": "this judge",
    "assert_close": "assert_close, its defaults",
    "1e-2": "rtol = atol = 1e-2",
    "5e-2": "rtol = atol = 5e-2",
    "plain": "at most twice plain's error",
}
"""What is compared, and what the table calls it."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One kernel on one case.

    Attributes
    ----------
    kind : str
        "kernel", "fault", or "narrow" for sums in the format.
    name, key, case, format : str
    held : bool
        Whether it is held out.
    refused : dict of bool
        By rule; the rule that asks for a plain reference has nothing to say of that itself.
    visible : float
        How many times the errors of correct kernels the fault moves some result.
    near : str
        The result that the judge finds worst.
    worst, rms : float
        There: errors in units of their limits.
    """

    kind: str
    name: str
    key: str
    case: str
    format: str
    held: bool
    refused: dict
    visible: float = np.nan
    near: str = ""
    worst: float = np.nan
    rms: float = np.nan


def modules_of(key):
    """List a system's example and variants of it."""
    example = SYSTEMS[key].example()
    found = [example]
    if "training" in {field.name for field in dataclasses.fields(example)} and example.buffer_shapes():
        found.append(dataclasses.replace(example, training=True))
    more = {
        "se": lambda: [
            npattn.SqueezeExcitation(channels=20, reduction=4, bias=False),
            npattn.SqueezeExcitation(channels=20, reduction=4, activation="gelu"),
            npattn.SqueezeExcitation(channels=20, reduction=4, batch_norm=True, add_maxpool=True, training=True),
        ],
        "eca": lambda: [npattn.EfficientChannelAttention(channels=20, kernel_size=5)],
        "ge": lambda: [
            npattn.GatherExcite(channels=20, reduction=4),
            npattn.GatherExcite(channels=20, reduction=4, extent=2),
        ],
        "sliding-window": lambda: [npattn.SlidingWindowSegmentation(channels=8, classes=5, window=7, stride=4)],
        "cbam": lambda: [npattn.CBAM(channels=20, reduction=4, batch_norm=False)],
        "cbam-channel": lambda: [npattn.CBAMChannelGate(channels=20, reduction=4, pools=("lp", "lse"))],
        "bam": lambda: [npattn.BAM(channels=20, reduction=4, dilation=2, variant="paper")],
        "simam": lambda: [npattn.SimAM(channels=20, e_lambda=1.0, variant="paper")],
        "triplet": lambda: [npattn.TripletAttention(channels=20, spatial=False, kernel_size=3)],
        "sge": lambda: [npattn.SpatialGroupEnhance(channels=20, groups=5, variant="paper")],
        "attention-gate": lambda: [npattn.AttentionGate(channels=20, hidden=6, stride=2, batch_norm=False)],
        "ema": lambda: [npattn.EfficientMultiScaleAttention(channels=12, groups=2)],
        "lambda": lambda: [
            npattn.LambdaLayer(channels=20, heads=2, key_channels=5, kernel_size=5, stride=2, bias=True),
        ],
        "window": lambda: [npattn.WindowAttention(channels=20, heads=2, window=(3, 5), head_channels=6)],
        "polarized": lambda: [
            npattn.PolarizedSelfAttention(channels=20, form="sequential"),
            npattn.PolarizedSelfAttention(channels=12, variant="paper"),
        ],
        "pam": lambda: [npattn.PositionAttention(channels=24, reduction=4)],
        "criss-cross": lambda: [npattn.CrissCrossAttention(channels=24, reduction=4, recurrence=1)],
        "cam": lambda: [npattn.ChannelAttention(channels=8, variant="code")],
        "danet": lambda: [npattn.DualAttentionHead(in_channels=12, classes=4, variant="code", size=(9, 8))],
        "gc": lambda: [
            npattn.GlobalContext(channels=20, reduction=4, fuse=("add",)),
            npattn.GlobalContext(channels=20, reduction=4, attention=False),
        ],
        "non-local": lambda: [
            npattn.NonLocal(channels=20, hidden=5, variant="dot_product"),
            npattn.NonLocal(channels=20, hidden=5, subsample=True, batch_norm=False),
        ],
        "external": lambda: [npattn.ExternalAttention(channels=20, memory=9, block=False)],
        "double": lambda: [npattn.DoubleAttention(channels=20, reduction=5)],
        "linear": lambda: [npattn.EfficientAttention(channels=20)],
        "mhsa": lambda: [npattn.MultiHeadSelfAttention(channels=24, heads=3)],
        "bottleneck": lambda: [
            npattn.BottleneckAttention(channels=12, feat_size=(7, 9), heads=3, stride=2, bias=True),
            npattn.BottleneckAttention(channels=16, feat_size=(9, 9), head_dim=8, scale_pos_embed=True),
        ],
        "halo": lambda: [
            npattn.HaloAttention(channels=12, heads=3, block_size=4, halo_size=1, stride=2, bias=True),
            npattn.HaloAttention(channels=16, heads=2, block_size=3, halo_size=2, stride=2, scale_pos_embed=True),
        ],
        "sk": lambda: [
            npattn.SelectiveKernel(in_channels=12, out_channels=8, split_input=False, hidden=5),
            npattn.SelectiveKernel(in_channels=12, kernel_sizes=(3, 5, 7), groups=2, hidden=5, training=True),
        ],
        "shuffle": lambda: [npattn.ShuffleAttention(channels=12, groups=2)],
        "split": lambda: [
            npattn.SplitAttention(in_channels=12, out_channels=8, groups=2, hidden=4),
            npattn.SplitAttention(in_channels=12, radix=3, hidden=3, training=True),
        ],
        "residual": lambda: [npattn.Residual(npattn.CBAM.example()), npattn.Residual(npattn.PositionAttention(8))],
        "sdpa": lambda: [
            npattn.ScaledDotProductAttention(**options)
            for options in (
                {"heads": 2, "head_dim": 8},
                {"heads": 4, "key_heads": 1, "head_dim": 12, "causal": "bottom-right", "logsumexp": True},
                {"heads": 2, "head_dim": 8, "value_dim": 4, "bias": True, "softcap": 2, "logsumexp": True},
                {"heads": 2, "head_dim": 8, "mask": True, "lengths": True, "sink": True, "logsumexp": True},
                {"heads": 2, "key_heads": 1, "head_dim": 8, "window": (3, 1), "softcap": 1, "sink": True},
            )
        ],
        "masked": lambda: [
            MaskedAttention(masking=masking, pattern=pattern, by_hand=i % 2 == j)
            for i, masking in enumerate(MASKINGS)
            for j, pattern in enumerate(("padding", "causal"))
        ],
    }
    return found + more.get(key, list)()


def held_out_cases(key):
    """List cases of a system on which no limit was tuned: module, shape, kind of values."""
    more = {
        "se": lambda: [
            npattn.SqueezeExcitation(channels=24, reduction=4),
            npattn.SqueezeExcitation(channels=40),
            npattn.SqueezeExcitation(channels=24, reduction=4, activation="leaky_relu", gate="hard_sigmoid"),
        ],
        "eca": lambda: [npattn.EfficientChannelAttention(channels=24, kernel_size=7)],
        "ge": lambda: [
            npattn.GatherExcite(channels=24, reduction=4, extent=4, gate="hard_sigmoid"),
            npattn.GatherExcite(channels=40, extent=2, extra_params=True, training=True),
        ],
        "flexible": lambda: [npattn.FlexibleAttention(channels=24, reduction=4)],
        "sliding-window": lambda: [npattn.SlidingWindowSegmentation(channels=24, classes=4, window=4, stride=3)],
        "flexible-segmentation": lambda: [npattn.FlexibleSegmentation(channels=24, classes=2, window=5, stride=2)],
        "cbam": lambda: [
            npattn.CBAM(channels=40, reduction=4, training=True),
            npattn.CBAM(channels=24, reduction=4, pools=("lp", "lse")),
        ],
        "cbam-channel": lambda: [npattn.CBAMChannelGate(channels=24, reduction=4, pools=("avg", "lse"))],
        "cbam-spatial": lambda: [npattn.CBAMSpatialGate(channels=40), npattn.CBAMSpatialGate(24, training=True)],
        "coordinate": lambda: [
            npattn.CoordinateAttention(channels=40, reduction=4),
            npattn.CoordinateAttention(channels=24, reduction=4, training=True),
        ],
        "bam": lambda: [
            npattn.BAM(channels=24, reduction=4, dilation=3),
            npattn.BAM(channels=40, dilation=2, variant="paper", training=True),
        ],
        "simam": lambda: [npattn.SimAM(channels=24), npattn.SimAM(channels=40, e_lambda=0.01, variant="paper")],
        "triplet": lambda: [npattn.TripletAttention(channels=24), npattn.TripletAttention(channels=40, training=True)],
        "sge": lambda: [
            npattn.SpatialGroupEnhance(channels=24, groups=4),
            npattn.SpatialGroupEnhance(channels=40, groups=2, variant="paper"),
        ],
        "attention-gate": lambda: [
            npattn.AttentionGate(channels=24, gating_channels=10, hidden=5, batch_norm=False),
            npattn.AttentionGate(channels=40, stride=2, training=True),
        ],
        "ema": lambda: [
            npattn.EfficientMultiScaleAttention(channels=24, groups=3),
            npattn.EfficientMultiScaleAttention(channels=40, groups=8),
        ],
        "polarized": lambda: [
            npattn.PolarizedSelfAttention(channels=24),
            npattn.PolarizedSelfAttention(channels=40, form="sequential", variant="paper"),
        ],
        "pam": lambda: [npattn.PositionAttention(channels=40, reduction=4)],
        "criss-cross": lambda: [
            npattn.CrissCrossAttention(channels=24, reduction=4),
            npattn.CrissCrossAttention(channels=40, recurrence=3),
        ],
        "cam": lambda: [npattn.ChannelAttention(channels=24), npattn.ChannelAttention(channels=40, variant="code")],
        "danet": lambda: [
            npattn.DualAttentionHead(in_channels=24, classes=3),
            npattn.DualAttentionHead(in_channels=40, classes=3, training=True, size=(13, 7)),
        ],
        "gc": lambda: [
            npattn.GlobalContext(channels=24, reduction=4, gate="hard_sigmoid"),
            npattn.GlobalContext(channels=40, fuse=("add",), activation="silu", eps=1e-5),
        ],
        "non-local": lambda: [
            npattn.NonLocal(channels=24, hidden=12, scale=0.5),
            npattn.NonLocal(channels=40, hidden=5, variant="dot_product", subsample=True),
        ],
        "external": lambda: [
            npattn.ExternalAttention(channels=24, memory=16),
            npattn.ExternalAttention(channels=40, memory=5, block=False),
        ],
        "double": lambda: [npattn.DoubleAttention(channels=24), npattn.DoubleAttention(channels=40, hidden=7, maps=3)],
        "linear": lambda: [npattn.EfficientAttention(24, heads=4), npattn.EfficientAttention(40, heads=5)],
        "mhsa": lambda: [
            npattn.MultiHeadSelfAttention(channels=24, heads=4),
            npattn.MultiHeadSelfAttention(channels=40, heads=5),
        ],
        "bottleneck": lambda: [
            npattn.BottleneckAttention(channels=24, feat_size=(8, 6), heads=2, qk_ratio=0.5),
            npattn.BottleneckAttention(channels=20, feat_size=(5, 13), out_channels=40, head_dim=6, stride=2),
        ],
        "halo": lambda: [
            npattn.HaloAttention(channels=24, heads=2, block_size=4, halo_size=2, qk_ratio=0.5),
            npattn.HaloAttention(channels=20, heads=4, out_channels=40, block_size=2, halo_size=3, stride=2),
        ],
        "sdpa": lambda: [
            npattn.ScaledDotProductAttention(**options)
            for options in (
                {"heads": 6, "key_heads": 3, "head_dim": 24, "causal": "bottom-right", "softcap": 3, "bias": True},
                {"heads": 2, "head_dim": 40, "window": (5, 0), "lengths": True, "mask": True, "logsumexp": True},
            )
        ],
        "lambda": lambda: [
            npattn.LambdaLayer(channels=24, heads=3, key_channels=8, kernel_size=7),
            npattn.LambdaLayer(channels=40, heads=4, key_channels=3, kernel_size=3, stride=2, training=True),
        ],
        "window": lambda: [
            npattn.WindowAttention(channels=24, heads=3, window=5, shift=2, bias=False),
            npattn.WindowAttention(channels=40, heads=5, window=(4, 2), shift=(0, 1), mask_value=-100),
        ],
        "multi-scale": lambda: [
            npattn.MultiScaleConcat(in_channels=24, out_channels=5, rates=(2, 5)),
            npattn.MultiScaleConcat(in_channels=10, out_channels=8, rates=(2, 5), training=True),
        ],
        "sk": lambda: [
            npattn.SelectiveKernel(in_channels=24, dilated=False, hidden=7),
            npattn.SelectiveKernel(in_channels=10, out_channels=16, stride=2, activation="silu", training=True),
        ],
        "shuffle": lambda: [
            npattn.ShuffleAttention(channels=24, groups=3),
            npattn.ShuffleAttention(channels=40, groups=2),
        ],
        "split": lambda: [
            npattn.SplitAttention(in_channels=24, hidden=5, stride=2),
            npattn.SplitAttention(in_channels=16, out_channels=10, radix=4, hidden=3, activation="silu", training=True),
        ],
        "residual": lambda: [
            npattn.Residual(npattn.MultiHeadSelfAttention(channels=24, heads=4)),
            npattn.Residual(npattn.EfficientChannelAttention(channels=40)),
        ],
        "hard": lambda: [npattn.HardAttention(channels=24)],
        "soft-hard": lambda: [npattn.SoftHardAttention(channels=24, k=7)],
        "pcm": lambda: [npattn.PixelCorrelation(channels=5, embedding=24)],
        "masked": lambda: [MaskedAttention(24, "-1e9"), MaskedAttention(40, "-inf", "padding", by_hand=True)],
    }
    found = [(module, shape, "generic") for module in more.get(key, list)() for shape in HELD_OUT_SHAPES]
    example = SYSTEMS[key].example()
    return found + [(example, SHAPES[0], values) for values in ("large", "ties")]


def measure(module, shape, format, seeds, *, values="generic", held=False, more_kernels=()):
    """Judge correct and faulty kernels on all cases of one shape: a list of trials."""
    batch, height, width = shape
    sizes = {"batch": batch, "height": height, "width": width}
    try:
        cases = [golden(module, **sizes, dtype=format, seed=seed, values=values) for seed in seeds]
    except ValueError:
        return []  # in training, too few values for a variance; fewer positions than are to be chosen
    done = [run_kernels(case, more_kernels) for case in cases]
    found = [largest_errors(case) for case in cases]
    noise = {name: np.max([each[name] for each in found], axis=0) for name in cases[0].expected}
    trials = []
    for case, found in zip(cases, done, strict=True):
        plain = found[next(name for name in kernels.PLAIN if name in found)]
        for name, results in found.items():
            trials.append(try_results(case, "kernel", name, results, None if results is plain else plain))
        trials += try_faults(case, plain, noise)
        if format != "float32":
            results = kernels.narrow_sums(case)
            moved = visibility(case, results, noise)
            trials.append(try_results(case, "narrow", "sums in the format", results, plain, visible=moved))
    return [dataclasses.replace(trial, held=trial.held or held) for trial in trials]


def measure_cuda(module, shape, format, seeds, *, values="generic", more_kernels=()):
    """Judge PyTorch's kernels on a GPU on all cases of one shape, nothing planted: a list of trials."""
    batch, height, width = shape
    found = []
    for seed in seeds:
        try:
            case = golden(module, batch=batch, height=height, width=width, dtype=format, seed=seed, values=values)
        except ValueError:
            return []
        for name, kernel in (kernels.CUDA | {name: kernels.CUDA_COMPILED[name] for name in more_kernels}).items():
            try:
                found.append(try_results(case, "kernel", name, kernel(case), None))
            except kernels.SkippedError:
                continue
    return found


def report_cuda(trials, most):
    """Write what is refused of each kernel in each format, and how near they come to the limits."""
    lines = [f"{'':<42}{'refused':>8}{'of':>6}{'worst':>10}{'rms':>10}"]
    for format in (*FORMATS, "tf32"):
        for name in dict.fromkeys(trial.name for trial in trials if trial.format == format):
            own = [t for t in trials if (t.name, t.format) == (name, format)]
            refused = sum(t.refused["golden case"] for t in own)
            worst, rms = (max(getattr(t, of) for t in own) for of in ("worst", "rms"))
            lines.append(f"{format:<10}{name:<32}{refused:>8}{len(own):>6}{worst:>10.2f}{rms:>10.2f}")
    return lines + listed("correct kernels refused", [t for t in trials if t.refused["golden case"]], most)


def run_kernels(case, more=()):
    """Run all correct kernels that can run a case, some of those that take long if they are named: results by name."""
    found = {}
    for name, kernel in (kernels.KERNELS | {name: kernels.COMPILED[name] for name in more}).items():
        try:
            found[name] = kernel(case)
        except kernels.SkippedError:
            continue
    return found


def sizes(case, name, errors):
    """Return root mean square and maximum of the errors of a result, where the format can hold it."""
    errors = errors[np.isfinite(case.expected[name])]
    return np.array([np.sqrt(np.mean(np.square(errors))), np.max(np.abs(errors))]) if errors.size else np.zeros(2)


def difference(found, expected):
    """Return by how much results are off; the same infinity is off by nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(found == expected, 0, found - expected)


def largest_errors(case):
    """Return the largest errors of plain kernels in every result; at least those of rounding it to the format."""
    found = {name: [sizes(case, name, ulp(value, case.format) / 12**0.5)] for name, value in case.expected.items()}
    random = np.random.RandomState([case.seed, 4])
    for draw in range(1 + UPSTREAM):
        other = case if draw == 0 else with_upstream(case, random)
        random_rounding = functools.partial(kernels.nearest, rounding=Rounding(case.format, [case.seed, draw, 5]))
        for kernel in (*(kernels.KERNELS[name] for name in kernels.PLAIN), random_rounding):
            try:
                results = kernel(other)
            except kernels.SkippedError:
                continue
            for name, value in results.items():
                error = difference(value, other.expected[name])
                found[name].append(sizes(case, name, np.where(np.isfinite(error), error, 0)))
    return {name: np.max(each, axis=0) for name, each in found.items()}


def with_upstream(case, random):
    """Draw other upstream gradients for a case."""
    upstream = {
        name: representable(random.standard_normal(dy.shape), case.format).astype(np.float32)
        for name, dy in case.upstream.items()
    }
    other = dataclasses.replace(case, upstream=upstream)
    with np.errstate(all="ignore"):
        exact = kernels.run_reference(case.module, *kernels.given(other, np.float64))
    return dataclasses.replace(other, expected=exact)


def visibility(case, results, noise):
    """Tell how many times the errors of correct kernels results are off, at most."""
    factors = [0.0]
    for name, value in results.items():
        moved = np.where(np.isfinite(value), difference(value, case.expected[name]), np.inf)
        factors.append(np.max(sizes(case, name, moved) / noise[name]))
    return float(np.max(factors))


def try_faults(case, plain, noise):
    """Plant every fault that applies, in one of its places, in a fused and in a plain kernel."""
    trials = []
    exact = kernels.given(case, np.float64)
    with np.errstate(all="ignore"):
        places = faults.sites(kernels.run_reference, faults.FAULTS, case.module, *exact)
        for fault, where in places.items():
            site = where[zlib.crc32(f"{fault} {case}".encode()) % len(where)]  # any, but always the same
            run = faults.faulty(kernels.run_reference, fault, site)
            moved = visibility(case, run(case.module, *exact), noise)
            held = fault in faults.HELD_OUT
            for way, kernel in (("fused", kernels.single), ("plain", kernels.nearest)):
                name = f"{fault}, call {site}, {way}"
                results = kernel(case, run)
                trials.append(try_results(case, "fault", name, results, plain, held=held, visible=moved))
    return trials


def try_results(case, kind, name, results, plain, *, held=False, visible=np.nan):
    """Judge results by every rule; `plain` holds the plain low-precision results, None if these are they."""
    report = case.compare(results)
    worst = max(report.judgements.values(), key=lambda j: badness(j).max())
    stored = "float32" if case.dtype == "tf32" else case.dtype
    refused = {"golden case": not report.passed, "assert_close": beyond(case, results, *TOLERANCES[stored])}
    refused |= {rule: beyond(case, results, float(rule), float(rule)) for rule in ("1e-2", "5e-2")}
    if plain is not None:
        refused["plain"] = any(
            not np.max(np.abs(difference(value, case.expected[n])), initial=0)
            <= 2 * np.max(np.abs(difference(plain[n], case.expected[n])), initial=0)
            for n, value in results.items()
        )
    held = held or name in kernels.HELD_OUT
    nearness = visible, worst.name, *map(float, badness(worst))
    return Trial(kind, name, case.module.key, repr(case), case.dtype, held, refused, *nearness)


def badness(judgement):
    """Return worst and root mean square of the errors in units of their limits."""
    if judgement.trouble:
        return np.array([np.inf, np.inf])
    return np.array([judgement.worst / judgement.worst_limit, judgement.rms / judgement.rms_limit])


def beyond(case, results, relative, absolute):
    """Tell whether some number is off by more than a tolerance, as PyTorch's assert_close reckons."""
    with np.errstate(invalid="ignore"):
        return any(
            not (np.abs(difference(value, case.expected[n])) <= absolute + relative * np.abs(case.expected[n])).all()
            for n, value in results.items()
        )


# The report


def seen(trial):
    return not trial.visible < VISIBLE


def share(count, total):
    """Write a share in percent; 0 stands for none at all."""
    if not total:
        return "-"
    percent = 100 * count / total
    return f"{percent:.2g} %" if 0 < percent < 10 else f"{percent:.0f} %" if count else "0"


def table(trials):
    """Write what each rule refuses of the correct kernels, and misses of the faults that can be seen."""
    lines = []
    for kind, title, wrong in (
        ("kernel", "correct kernels refused", lambda trial, rule: trial.refused[rule]),
        ("fault", "visible faults missed", lambda trial, rule: not trial.refused[rule]),
    ):
        those = [trial for trial in trials if trial.kind == kind and (kind == "kernel" or seen(trial))]
        columns = [[t for t in those if t.format == format] for format in FORMATS] + [those]
        lines.append(f"{title + ', of':<30}" + "".join(f"{len(column):>11}" for column in columns))
        for rule, words in RULES.items():
            cells = []
            for column in columns:
                judged = [trial for trial in column if rule in trial.refused]
                cells.append(share(sum(wrong(trial, rule) for trial in judged), len(judged)))
            lines.append(f"  {words:<28}" + "".join(f"{cell:>11}" for cell in cells))
    return lines


def room(trials):
    """Write how near correct kernels come to the limits: the largest errors, in units of limits, worst and rms."""
    lines = [f"{'errors over limits, worst, rms':<30}" + "".join(f"{format:>16}" for format in FORMATS)]
    for key in dict.fromkeys(trial.key for trial in trials):
        cells = []
        for format in FORMATS:
            own = [t for t in trials if t.kind == "kernel" and t.key == key and t.format == format]
            pair = [max((getattr(t, of) for t in own), default=np.nan) for of in ("worst", "rms")]
            cells.append(f"{pair[0]:.2f} {pair[1]:.2f}")
        lines.append(f"  {key:<28}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def listed(title, trials, most):
    """List trials, one a line."""
    lines = [f"{title}: {len(trials)}"]
    for t in trials[:most]:
        lines.append(f"  {t.case}: {t.name}")
        moved = "" if np.isnan(t.visible) else f"; moved {t.visible:.2g} times the errors of correct kernels"
        lines.append(f"    {t.near}: worst {t.worst:.2f}, rms {t.rms:.2f} of the limits{moved}")
    if len(trials) > most:
        lines.append(f"  and {len(trials) - most} more")
    return lines


def report(trials, most):
    """Write the whole report."""
    headings = f"{'':<30}" + "".join(f"{name:>11}" for name in (*FORMATS, "all"))
    lines = []
    for title, held in (("TUNED ON", False), ("HELD OUT", True)):
        part = [trial for trial in trials if trial.held == held]
        lines += [f"{title:<30}{headings[30:]}", *table(part), ""]
    kinds = {kind: [trial for trial in trials if trial.kind == kind] for kind in ("kernel", "fault", "narrow")}
    lines += [*room(trials), ""]
    small = [trial for trial in kinds["fault"] if not seen(trial)]
    caught = sum(trial.refused["golden case"] for trial in small)
    lines.append(f"faults too small for the format: {len(small)}, of which caught all the same: {caught}")
    shown = [trial for trial in kinds["narrow"] if seen(trial)]
    caught = sum(trial.refused["golden case"] for trial in shown)
    lines.append(f"sums in the format, where visible: {len(shown)} of {len(kinds['narrow'])}, caught: {caught}")
    lines += listed("correct kernels refused", [t for t in kinds["kernel"] if t.refused["golden case"]], most)
    missed = [t for t in kinds["fault"] if seen(t) and not t.refused["golden case"]]
    lines += listed("visible faults missed", missed, most)
    return lines


def some_values(module, batch=3, height=6, width=7):
    """Draw parameters, inputs and upstream gradients, in float64."""
    params, inputs = generic_values(module, batch=batch, height=height, width=width)
    random = np.random.RandomState(0)
    shapes = module.output_shapes(batch, height, width)
    return params, inputs, {name: random.standard_normal(shape) for name, shape in shapes.items()}


def list_faults(key):
    """Write which faults can be planted in a system or one of its variants."""
    ways = {"forward": {}, "both": {}, "backward": {}}
    for module in modules_of(key):
        for fault in faults.sites(kernels.run_reference, faults.FAULTS, module, *some_values(module)):
            ways[fault.way][str(fault)] = None
    lines = []
    for way, names in ways.items():
        lines.append(f"{key}, {way}: {len(names)}")
        lines += textwrap.wrap(", ".join(names), 76, initial_indent="    ", subsequent_indent="    ")
    return lines


def run_group(group):
    """Measure one group; what it raises, such as a compiler's error, may hold what can't pass between processes."""
    try:
        return group()
    except Exception as error:
        raise RuntimeError("".join(traceback.format_exception(error))) from None


def run_all(groups, jobs):
    """Measure all groups, in several processes or this one alone, and tell how far it is."""
    began, trials = time.perf_counter(), []
    if jobs == 1:
        return [trial for group in groups for trial in group()]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        futures = [pool.submit(run_group, group) for group in groups]
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            future.result()
            if done % max(1, len(groups) // 20) == 0:
                print(f"{done / len(groups):4.0%}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for future in futures:
            trials += future.result()
    return trials


def main(argv=None):
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--quick", action="store_true", help="the examples alone, on one shape")
    parser.add_argument("--faults", action="store_true", help="list what faults are planted in each system, no more")
    parser.add_argument("--compile", action="store_true", help="try torch.compile on held-out cases, which takes long")
    parser.add_argument("--cuda", action="store_true", help="PyTorch's kernels on a GPU, and no others; in tf32 too")
    parser.add_argument("--seeds", type=int, default=1, help="cases of every shape (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--list", type=int, default=10, metavar="N", help="list so many failures of each kind")
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in SYSTEMS:
            parser.error(f"unknown system {key!r} (expected some of {', '.join(SYSTEMS)})")
    if arguments.faults:
        for key in arguments.keys or SYSTEMS:
            print("\n".join(list_faults(key)))
        return
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    if arguments.cuda:
        more = tuple(kernels.CUDA_COMPILED) if arguments.compile else ()
        groups = []
        for key in arguments.keys or SYSTEMS:
            example, *variants = modules_of(key)
            generic = [(example, shape) for shape in SHAPES] + [
                (v, shape) for v in variants for shape in VARIANT_SHAPES
            ]
            cases = [(module, shape, "generic") for module, shape in generic] + held_out_cases(key)
            groups += [
                functools.partial(measure_cuda, module, shape, format, seeds, values=values, more_kernels=more)
                for module, shape, values in (cases[:1] if arguments.quick else cases)
                for format in (*FORMATS, "tf32")
            ]
        print("\n".join(report_cuda(run_all(groups, arguments.jobs), arguments.list)))
        return
    groups = []
    for key in arguments.keys or SYSTEMS:
        example, *variants = modules_of(key)
        cases = [(example, shape) for shape in SHAPES] + [(v, shape) for v in variants for shape in VARIANT_SHAPES]
        groups += [
            functools.partial(measure, *case, format, seeds)
            for case in (cases[:1] if arguments.quick else cases)
            for format in FORMATS
        ]
        if not arguments.quick:
            more = tuple(kernels.COMPILED) if arguments.compile else ()
            groups += [
                functools.partial(measure, module, shape, format, seeds, values=values, held=True, more_kernels=more)
                for module, shape, values in held_out_cases(key)
                for format in FORMATS
            ]
    print("\n".join(report(run_all(groups, arguments.jobs), arguments.list)))


if __name__ == "__main__":
    main()
