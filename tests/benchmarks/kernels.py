"""Correct kernels for the judge to pass: each computes a golden case's results honestly, in its own way."""

import contextlib
import functools
import importlib
import warnings
from unittest import mock

import numpy as np

import npattn
from npattn.module import as_tuple
from npattn.oracle.formats import representable
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.rounding import Rounding
from tests.benchmarks import primitives

__all__ = [
    "COMPILED",
    "CUDA",
    "CUDA_COMPILED",
    "HELD_OUT",
    "KERNELS",
    "PLAIN",
    "SkippedError",
    "narrow_sums",
    "nearest",
    "rounded",
    "run_reference",
    "single",
]


class SkippedError(Exception):
    """The kernel can't run this case: it has no such form, or PyTorch has no such operation in the format."""


def given(case, dtype=np.float32):
    """Return what a kernel is given: parameters, inputs, upstream gradients."""
    return tuple(
        {name: a.astype(dtype) for name, a in values.items()} for values in (case.params, case.inputs, case.upstream)
    )


def rounded(results, format):
    """Round results to the format, as a kernel does that computes in float32 and writes in the format."""
    with np.errstate(over="ignore"):
        return {name: representable(np.asarray(a).astype(np.float64), format) for name, a in results.items()}


def run_reference(module, params, inputs, upstream):
    """Run forward and backward; name the results as a case does."""
    run = module(params, *inputs.values())
    dx, grads = run.backward(*upstream.values() if len(upstream) == 1 else [tuple(upstream.values())])
    found = dict(zip(inputs, as_tuple(dx), strict=True)) | grads
    outputs = dict(zip(upstream, as_tuple(run.output), strict=True))
    return outputs | {f"{name}.grad": gradient for name, gradient in found.items() if gradient is not None}


def single(case, run=run_reference):
    """NumPy in float32, results rounded to the format: a fused kernel."""
    with np.errstate(all="ignore"):
        return rounded(run(case.module, *given(case)), case.format)


def nearest(case, run=run_reference, rounding=None):
    """The reference with every operation's result rounded to the format: a plain kernel, one operation at a time."""
    rounding = rounding or Rounding(case.format)
    arrays = ({name: rounding.array(a) for name, a in values.items()} for values in given(case))
    with np.errstate(all="ignore"):
        return {name: np.asarray(a).astype(np.float64) for name, a in run(case.module, *arrays).items()}


# Other orders of summation


class Sums:
    """An order in which numbers are added up.

    Parameters
    ----------
    chunk : int
        Numbers that are added up in one step, by NumPy; the chunks' sums are added one by one.
    order : callable
        Takes n, and returns the order of n terms.
    narrow : callable, optional
        Rounds, in place, every partial sum.
    """

    def __init__(self, chunk, order, narrow=None):
        self.chunk, self.order, self.narrow = chunk, order, narrow

    def array(self, a):
        array = np.array(a).view(SummedArray)
        array.sums = self
        return array

    def parts(self, count):
        order = self.order(count)
        return [order[i : i + self.chunk] for i in range(0, count, self.chunk)]

    def add(self, terms):
        total = next(terms)
        for term in terms:
            total = total + term
            if self.narrow:
                self.narrow(total)
        return total

    def reduce(self, a, axis, keepdims):
        axes = tuple(range(a.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(i % a.ndim for i in axes)
        rest = tuple(i for i in range(a.ndim) if i not in axes)
        rows = a.transpose(*rest, *axes).reshape(*(a.shape[i] for i in rest), -1)
        if not rows.shape[-1]:
            return a.sum(axis=axes, keepdims=keepdims)
        total = self.add(rows[..., part].sum(axis=-1) for part in self.parts(rows.shape[-1]))
        return total.reshape([1 if i in axes else n for i, n in enumerate(a.shape)]) if keepdims else total

    def matmul(self, a, b):
        left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        if not left.shape[-1]:
            return a @ b
        c = self.add(left[..., part] @ right[..., part, :] for part in self.parts(left.shape[-1]))
        c = c[..., 0, :] if a.ndim == 1 else c
        return c[..., 0] if b.ndim == 1 else c

    def einsum(self, subscripts, *operands):
        """Multiply what is broadcast to all axes, then add up."""
        inputs, _, kept = subscripts.partition("->")
        inputs = inputs.split(",")
        letters = kept + "".join(sorted(set("".join(inputs)) - set(kept)))
        product = 1
        for names, a in zip(inputs, operands, strict=True):
            order = sorted(range(a.ndim), key=lambda i, names=names: letters.index(names[i]))
            shape = iter([a.shape[i] for i in order])
            product = product * a.transpose(order).reshape([next(shape) if n in names else 1 for n in letters])
        summed = tuple(range(len(kept), len(letters)))
        return self.reduce(np.asarray(product), summed, False) if summed else product


class SummedArray(np.ndarray):
    """An array whose sums and products are added up in the order that `Sums` says."""

    sums: Sums | None

    def __array_finalize__(self, source):
        self.sums = getattr(source, "sums", None)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        sums = next(a.sums for a in (*inputs, *(out or ())) if isinstance(a, SummedArray) and a.sums)
        operands = [plain(a) for a in inputs]
        if ufunc is np.matmul:
            result = sums.matmul(*operands)
        elif ufunc is np.add and method == "reduce":
            result = sums.reduce(np.asarray(operands[0]), options.get("axis", 0), options.get("keepdims", False))
        else:
            if out:
                options["out"] = tuple(plain(a) for a in out)
            result = getattr(ufunc, method)(*operands, **options)
            return out[0] if out else wrap(result, sums)
        if out:
            plain(out[0])[...] = result
            return out[0]
        return wrap(result, sums)

    def __array_function__(self, function, types, arguments, options):
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        if function is np.einsum:
            return wrap(self.sums.einsum(arguments[0], *map(plain, arguments[1:])), self.sums)
        return super().__array_function__(function, types, arguments, options)


def plain(a):
    return a.view(np.ndarray) if isinstance(a, SummedArray) else a


def wrap(a, sums):
    if not isinstance(a, (np.ndarray, np.floating)) or a.dtype.kind != "f":
        return a
    array = np.asarray(a).view(SummedArray)
    array.sums = sums
    return array


def in_order(sums, case):
    """NumPy in float32 with sums in an order of their own, results rounded to the format."""
    arrays = ({name: sums.array(a) for name, a in values.items()} for values in given(case))
    with np.errstate(all="ignore"):
        return rounded(run_reference(case.module, *arrays), case.format)


def shuffled(count):
    return np.random.RandomState(count).permutation(count)


def backwards(count):
    return np.arange(count)[::-1]


class SplitSums(Sums):
    """Sums in several parts, as products split along K have: the terms are dealt out, and the parts' sums added up.

    Parameters
    ----------
    ways : int
    """

    def __init__(self, ways):
        super().__init__(1, np.arange)
        self.ways = ways

    def parts(self, count):
        return [np.arange(i, count, self.ways) for i in range(min(self.ways, count))]


def narrow_sums(case):
    """Float32, but sums in the format: no correct kernel."""
    return in_order(Sums(1, np.arange, Rounding(case.format).round), case)


# Primitives of another make


def made_of(case, parts):
    """NumPy in float32 with other primitives, results rounded to the format: `parts` makes them for a format."""
    used = []
    taken = {name: noted(primitive, used) for name, primitive in parts(case.format).items()}

    def answer(primitive, arguments, options):
        part = taken.get(primitive.__name__)
        return part(*arguments, **options) if part else NotImplemented

    with answering(answer):
        results = single(case)
    if not used:
        raise SkippedError("none of the primitives is called")
    return results


def with_functions(case, functions):
    """NumPy in float32 with another exponential, logarithm or root, results rounded to the format."""
    used = []
    with mock.patch.multiple(np, **{name: noted(function, used) for name, function in functions().items()}):
        results = single(case)
    if not used:
        raise SkippedError("none of the functions is called")
    return results


def noted(function, used):
    """Add a function to `used` when it is called."""

    @functools.wraps(function)
    def call(*args, **options):
        used.append(function)
        return function(*args, **options)

    return call


def online(block, base_2=False):
    """Attention in blocks of keys, in float32."""
    options = {"block": block, "base_2": base_2}
    attention = functools.partial(primitives.online_attention, **options)
    masked = functools.partial(primitives.online_masked_attention, **options)
    both = {"dot_product_attention": attention, "masked_attention": masked}
    return functools.partial(made_of, parts=lambda format: both)


def rounding_online(block, base_2=False, also=()):
    """Attention in blocks of keys, weights rounded to the format for their products, every primitive rounded.

    Of the weights' gradients and their average, which are told from each other at last, `also` says what is rounded.
    """

    def parts(format):
        narrow = primitives.narrowing(format)
        others = dict.fromkeys(also, narrow)

        def narrowed(online):
            def attention(*args, **options):
                value, backward = online(*args, block=block, narrow=narrow, base_2=base_2, **others, **options)
                return value, lambda *dy: narrow(backward(*dy))

            return attention

        return primitives.rounding_between(format) | {
            "dot_product_attention": narrowed(primitives.online_attention),
            "masked_attention": narrowed(primitives.online_masked_attention),
        }

    def run(case):
        if not calls_attention(case.module):
            raise SkippedError("no attention in it")
        return made_of(case, parts)

    return run


def averaging(*rounded):
    """Softmax with an average of its gradient made apart from it, in float32 but for what is rounded."""

    def parts(format):
        return primitives.weighing(**dict.fromkeys(rounded, primitives.narrowing(format)))

    def run(case):
        if not weighs(case.module):
            raise SkippedError("no softmax in it")
        return made_of(case, parts)

    return run


def weighs(module):
    inner = getattr(module, "inner", None)
    return module.key in WEIGHING or (inner is not None and weighs(inner))


def calls_attention(module):
    inner = getattr(module, "inner", None)
    return module.key in {"bottleneck", "danet", "halo", "mhsa", "non-local", "pam", "sdpa", "window"} or (
        inner is not None and calls_attention(inner)
    )


def by_taps(format):
    return {"conv2d": primitives.convolution_by_taps, "linear": primitives.fully_connected_by_images}


def in_one_pass(format):
    """Statistics in one pass: in float32 itself that is honest where no channel's mean is above its deviation."""

    def refuse(mean, variance):
        if format.name == "float32" and (mean * mean > variance).any():
            raise SkippedError("the variance cancels, in the format's own digits")

    return {"batch_norm": functools.partial(primitives.norm_in_one_pass, refuse=refuse)}


def by_tanh(format):
    """A sigmoid that is off by float32's unit beside 1: honest where that is a quarter of a rounding to the format."""

    def sigmoid(x):
        value, backward = primitives.sigmoid_by_tanh(x)
        if not (value * format.unit_roundoff >= 2.0**-23).all():
            raise SkippedError("it cancels, in the format's own digits")
        return value, backward

    return {"sigmoid": sigmoid}


def from_an_integral_image(format):
    """Windows as differences of sums over more than they hold: honest where those have digits to spare."""
    if format.name == "float32":
        raise SkippedError("it cancels, in the format's own digits")
    return {"window_average": primitives.integral_windows}


def textbook(format):
    return primitives.textbook


# PyTorch


def tests_of(module):
    """Return the tests of a system, where its PyTorch forms stand."""
    name = type(module).__module__.rpartition(".")[2]
    try:
        return importlib.import_module(f"tests.attention.test_{name}")
    except ImportError as error:
        raise SkippedError(f"no tests of {name}") from error


def published(module):
    """Return the PyTorch form of a system, its windows summed at once: window by window is no kernel's way."""
    key = module.key
    if hasattr(module, "in_pytorch"):  # a system as users bring them
        return module.in_pytorch()
    if key == "sliding-window":
        return windows(module)
    if key == "flexible-segmentation":
        return tests_of(module).published(module, windows)
    tests = tests_of(module)
    if not hasattr(tests, "published"):
        raise SkippedError(f"no PyTorch form of {key}")
    return tests.published(module)


def windows(module):
    """Sliding windows in PyTorch, all at once, by sums: as products they would round what they sum in tf32."""
    import torch

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(module.channels, module.classes)

        def forward(self, x):
            rows, columns = (membership(x, length, module) for length in x.shape[2:])
            positions = rows[0].sum() * columns[0].sum()
            sums = chosen(columns, chosen(rows, x.transpose(2, 3)).transpose(2, 3))
            scores = self.classifier((sums / positions).movedim(1, 3)).movedim(3, 1)
            count = torch.outer(rows.sum(dim=0), columns.sum(dim=0))
            return chosen(columns.T, chosen(rows.T, scores.transpose(2, 3)).transpose(2, 3)) / count

    def membership(x, length, module):
        starts = npattn.ops.window_starts(length, module.window, module.stride)
        at = torch.arange(length)
        return torch.stack([((start <= at) & (at < start + module.window)).to(x) for start in starts])

    def chosen(of, x):
        return (of * x[..., None, :]).sum(dim=-1)

    return Reference()


def form_of(name):
    def make(module):
        tests = tests_of(module)
        if not hasattr(tests, name) or module.key in {"sliding-window", "flexible-segmentation"}:
            raise SkippedError(f"no {name} form of {module.key}")
        return getattr(tests, name)(module)

    return make


def lay_channels_last(reference, layout):
    """Lay the kernels of maps out so; those of volumes have no such layout."""
    for parameter in reference.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=layout)


def leave_out_unwritten(reference, inputs):
    """Skip what PyTorch 2.13 does not compute: in bfloat16, channels last, on two threads, the weight gradient of a
    strided depth-wise convolution of a map one column wide holds memory that nobody wrote (up to 1e38)."""
    import torch

    def check(layer, inputs):
        if layer.groups > 1 and layer.stride != (1, 1) and inputs[0].shape[-1] == 1:
            raise SkippedError("PyTorch leaves weight gradients of strided depth-wise convolutions unwritten here")

    if any(a.dtype is torch.bfloat16 for a in inputs.values()):
        for layer in reference.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_pre_hook(check)


def in_pytorch(
    case,
    make=published,
    *,
    wide=False,
    autocast=False,
    channels_last=False,
    threads=1,
    compiler=None,
    device="cpu",
    backend=None,
):
    """Run a PyTorch form with autograd: in the format throughout, with autocast, or in float32 and then rounded.

    `compiler` names a backend of `torch.compile`, and `backend` one of `torch.nn.attention.SDPBackend`. On a GPU
    products of tf32 are those of its tensor cores.
    """
    try:
        import torch
    except ImportError as error:
        raise SkippedError("PyTorch is not installed") from error

    native = torch.float32 if case.dtype == "tf32" and device != "cpu" else getattr(torch, case.dtype, None)
    if native is None:
        raise SkippedError(f"PyTorch has no {case.dtype}")
    if native is torch.float32 and (wide or autocast):
        raise SkippedError("the same in float32 as without it")
    dtype = torch.float32 if wide or autocast else native
    reference = make(case.module)
    params, inputs, upstream = ({n: torch.tensor(a).to(device, dtype) for n, a in v.items()} for v in given(case))
    reference = reference.to(device, dtype)
    reference.load_state_dict(reference.state_dict() | params)
    reference.train(getattr(case.module, "training", False))
    if channels_last:
        lay_channels_last(reference, torch.channels_last)
        inputs = {n: a.to(memory_format=torch.channels_last) if a.ndim == 4 else a for n, a in inputs.items()}
        leave_out_unwritten(reference, inputs)
    leaves = {name: a.requires_grad_() for name, a in inputs.items()}
    context = contextlib.ExitStack()
    if autocast:
        context.enter_context(torch.autocast(device, native))
    if device != "cpu":
        context.enter_context(torch.device(device))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = case.dtype == "tf32"
    if backend:
        context.enter_context(torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)))
    call = reference
    if compiler:
        torch.compiler.reset()
        call = torch.compile(reference, backend=compiler)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with context, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the compiler, of itself
            outputs = dict(zip(upstream, as_tuple(call(*leaves.values())), strict=True))
        torch.autograd.backward(list(outputs.values()), [upstream[n].to(y.dtype) for n, y in outputs.items()])
    except RuntimeError as error:
        if any(words in str(error) for words in ("not implemented for", "No available kernel", "No viable backend")):
            raise SkippedError(f"{error}") from error
        raise
    finally:
        torch.set_num_threads(before)
    found = {f"{name}.grad": a.grad for name, a in (leaves | dict(reference.named_parameters())).items()} | outputs
    results = {
        name: found[name].detach().cpu().double().numpy() for name in case.expected if found.get(name) is not None
    }
    return rounded(results, case.format) if wide else results


WEIGHING = {"cam", "criss-cross", "danet", "double", "ema", "external", "gc", "hard", "lambda", "linear", "polarized"}
WEIGHING |= {"sk", "soft-hard", "split"}
"""Systems whose softmax stands by itself."""
KERNELS = {
    "PyTorch": in_pytorch,
    "PyTorch, autocast": functools.partial(in_pytorch, autocast=True),
    "PyTorch, float32": functools.partial(in_pytorch, wide=True),
    "NumPy, float32": single,
    "NumPy, rounded": nearest,
    "sums backwards": functools.partial(in_order, Sums(1, backwards)),
    "sums in chunks": functools.partial(in_order, Sums(16, np.arange)),
    "sums shuffled": functools.partial(in_order, Sums(3, shuffled)),
    "PyTorch, channels last, 2 threads": functools.partial(in_pytorch, channels_last=True, threads=2),
    "PyTorch, fused": functools.partial(in_pytorch, make=form_of("fused")),
    "PyTorch, fast": functools.partial(in_pytorch, make=form_of("fast")),
    "one rounding a primitive": functools.partial(made_of, parts=primitives.rounding_between),
    "online softmax, 16 keys": online(16),
    "online softmax, 64 keys, base 2": online(64, base_2=True),
    "rounded weights, 32 keys": rounding_online(32),
    "rounded weights, 64 keys, base 2": rounding_online(64, base_2=True),
    "rounded weights and their gradients": rounding_online(32, also=["narrow_ds"]),
    "rounded weights and δ": rounding_online(32, also=["narrow_delta"]),
    "softmax, gradients of weights rounded": averaging("narrow_ds"),
    "softmax, δ rounded": averaging("narrow_delta"),
    "softmax, δ of a rounded output": averaging("narrow_o"),
    "convolution by taps": functools.partial(made_of, parts=by_taps),
    "batch norm in one pass": functools.partial(made_of, parts=in_one_pass),
    "sigmoid by tanh": functools.partial(made_of, parts=by_tanh),
    "integral image": functools.partial(made_of, parts=from_an_integral_image),
    "textbook gradients": functools.partial(made_of, parts=textbook),
    "exponentials by powers of 2": functools.partial(with_functions, functions=primitives.powers_of_2),
    "functions off by 2 ulp": functools.partial(with_functions, functions=primitives.imprecise),
    "sums split in 4": functools.partial(in_order, SplitSums(4)),
}
"""Correct kernels, by name: each takes a case and returns its results."""
on_cuda = functools.partial(in_pytorch, device="cuda")
CUDA = {
    "CUDA": on_cuda,
    "CUDA, autocast": functools.partial(on_cuda, autocast=True),
    "CUDA, float32": functools.partial(on_cuda, wide=True),
    "CUDA, channels last": functools.partial(on_cuda, channels_last=True),
    "CUDA, fast": functools.partial(on_cuda, make=form_of("fast")),
} | {
    f"CUDA, {name}": functools.partial(on_cuda, make=form_of("fused"), backend=backend)
    for name, backend in [
        ("flash attention", "FLASH_ATTENTION"),
        ("memory-efficient attention", "EFFICIENT_ATTENTION"),
        ("cuDNN's attention", "CUDNN_ATTENTION"),
        ("attention by products", "MATH"),
    ]
}
"""PyTorch's kernels on a GPU, the fused ones of attention each by itself: correct ones, in tf32 too."""
CUDA_COMPILED = {"CUDA, compiled": functools.partial(on_cuda, compiler="inductor")}
COMPILED = {
    "PyTorch, decomposed": functools.partial(in_pytorch, compiler="aot_eager_decomp_partition"),
    "PyTorch, compiled": functools.partial(in_pytorch, compiler="inductor"),
}
"""Those that `torch.compile` makes, which takes seconds for a case."""
HELD_OUT = {
    "PyTorch, decomposed",
    "PyTorch, compiled",
    "one rounding a primitive",
    "online softmax, 16 keys",
    "online softmax, 64 keys, base 2",
    "rounded weights, 32 keys",
    "rounded weights, 64 keys, base 2",
    "rounded weights and their gradients",
    "rounded weights and δ",
    "softmax, gradients of weights rounded",
    "softmax, δ rounded",
    "softmax, δ of a rounded output",
    "convolution by taps",
    "batch norm in one pass",
    "sigmoid by tanh",
    "integral image",
    "textbook gradients",
    "exponentials by powers of 2",
    "functions off by 2 ulp",
    "sums split in 4",
}
"""Kernels that no limit was tuned on."""
PLAIN = "PyTorch", "NumPy, rounded"
"""Kernels that round after every operation: the first that runs a case is its plain low-precision reference."""
