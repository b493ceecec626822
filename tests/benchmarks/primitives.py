"""Primitives of another make than those of `npattn.ops`, as kernels compute them: what correct kernels are made of.

Each takes and returns what its namesake in `npattn.ops` does, on float32 arrays.
"""

import functools

import numpy as np

from npattn import ops
from npattn.ops import criss_cross
from npattn.ops.masking import keys_seen, sum_to
from npattn.ops.normalisation import batch_norm as reference_norm
from npattn.ops.windowing import window_average, window_starts
from npattn.oracle.formats import representable

__all__ = [
    "convolution_by_taps",
    "fully_connected_by_images",
    "imprecise",
    "integral_windows",
    "norm_in_one_pass",
    "online_attention",
    "online_masked_attention",
    "rounding_between",
    "sigmoid_by_tanh",
    "textbook",
    "weighing",
]

LOG2_E = float(np.log2(np.e))


def narrowing(format):
    """Return a function that rounds float32 arrays to a format; what else there is, it leaves alone."""

    def narrow(a):
        if isinstance(a, tuple):
            return tuple(map(narrow, a))
        if not isinstance(a, (np.ndarray, np.floating)) or a.dtype != np.float32:
            return a
        with np.errstate(over="ignore"):
            return representable(np.asarray(a, np.float64), format).astype(np.float32)

    return narrow


# Attention in blocks of keys


def online_attention(
    q, k, v, scale=1.0, *, block, narrow=None, base_2=False, narrow_ds=None, narrow_delta=None
):  # fmt: skip
    """Dot-product attention in blocks of keys, with a running maximum.

    What has been summed up is brought down when a block has a larger logit. With `narrow`, weights are rounded before
    they are multiplied with values, and gradients of logits before the products with queries and keys; with `narrow_ds`
    gradients of weights, with `narrow_delta` their average, before one is taken off the other. With `base_2`,
    exponentials are powers of 2, and log₂ e is a part of the scale.
    """
    narrow, narrow_ds, narrow_delta = (one or (lambda a: a) for one in (narrow, narrow_ds, narrow_delta))
    exp, log, factor = (np.exp2, np.log2, scale * LOG2_E) if base_2 else (np.exp, np.log, scale)
    rows, values = transpose(q), transpose(v)
    blocks = [slice(i, i + block) for i in range(0, k.shape[-1], block)]
    highest = np.full_like(rows[..., :1], -np.inf)
    total = np.zeros_like(highest)
    o = np.zeros_like(v, shape=(*q.shape[:-2], q.shape[-1], v.shape[-2]))
    for at in blocks:
        z = factor * (rows @ k[..., at])
        higher = np.maximum(highest, z.max(axis=-1, keepdims=True))
        shrink = exp(highest - higher)
        s = exp(z - higher)
        total = total * shrink + s.sum(axis=-1, keepdims=True)
        o = o * shrink + narrow(s) @ values[..., at, :]
        highest = higher
    o = narrow(o / total)
    log_sum = highest + log(total)

    def backward(do):
        do_rows = transpose(do)
        delta = narrow_delta((do_rows * o).sum(axis=-1, keepdims=True))
        dq, dk, dv = np.zeros_like(rows), np.empty_like(k), np.empty_like(v)
        for at in blocks:
            s = exp(factor * (rows @ k[..., at]) - log_sum)
            dv[..., at] = do @ narrow(s)
            dz = narrow(s * (narrow_ds(do_rows @ v[..., at]) - delta))
            dq += dz @ transpose(k[..., at])
            dk[..., at] = scale * (q @ dz)
        return scale * transpose(dq), dk, dv

    return transpose(o), backward


def online_masked_attention(
    q, k, v, scale=1.0, *, softcap=None, bias=None, sink=None, band=(None, None), lengths=None, mask=None,
    block, narrow=None, base_2=False, narrow_ds=None, narrow_delta=None,
):  # fmt: skip
    """Masked attention in blocks of keys, as `online_attention` has them; weights are exponentials of float32 logits.

    The sink is the first of all logits. The logsumexp stays in float32 for the way back, as kernels keep it, and is
    handed out to base e.
    """
    narrow, narrow_ds, narrow_delta = (one or (lambda a: a) for one in (narrow, narrow_ds, narrow_delta))
    exp, log, unit = (np.exp2, np.log2, LOG2_E) if base_2 else (np.exp, np.log, 1.0)
    rows, values = transpose(q), transpose(v)
    seen = keys_seen(q, k, slice(0, q.shape[-1]), band=band, lengths=lengths, mask=mask)
    seen = np.broadcast_to(seen, (*q.shape[:-2], *seen.shape[-2:]))
    blocks = [slice(i, i + block) for i in range(0, k.shape[-1], block)]
    dead = ~seen.any(axis=-1, keepdims=True)

    def logits(at):
        z, slope = scale * (rows @ k[..., at]), 1
        if softcap is not None:
            t = np.tanh(z / softcap)
            z, slope = softcap * t, 1 - t * t
        z = z if bias is None else z + bias[..., at]
        return np.where(seen[..., at], unit * z, -np.inf), slope

    highest = np.full_like(rows[..., :1], -np.inf) if sink is None else np.zeros_like(rows[..., :1])
    highest = highest if sink is None else highest + unit * sink[..., None, None]
    total = np.zeros_like(highest) if sink is None else np.ones_like(highest)
    o = np.zeros_like(v, shape=(*q.shape[:-2], q.shape[-1], v.shape[-2]))
    for at in blocks:
        z, _ = logits(at)
        higher = np.maximum(highest, z.max(axis=-1, keepdims=True))
        base = np.where(higher == -np.inf, 0, higher)
        s = exp(z - base)
        total = total * exp(highest - base) + s.sum(axis=-1, keepdims=True)
        o = o * exp(highest - base) + narrow(s) @ values[..., at, :]
        highest = higher
    o = narrow(np.where(dead, 0, o / np.where(dead, 1, total)))
    log_sum = np.where(dead, np.inf, highest + log(np.where(dead, 1, total)))

    def backward(do, dl=0.0):
        do_rows = transpose(np.where(dead[..., 0][..., None, :], 0, do))
        through_l = dl if np.ndim(dl) == 0 else dl[..., None]
        delta = np.where(dead, 0, narrow_delta((do_rows * o).sum(axis=-1, keepdims=True)) - through_l)
        dq, dk, dv, dbias = np.zeros_like(rows), np.empty_like(k), np.empty_like(v), []
        for at in blocks:
            z, slope = logits(at)
            s = exp(z - log_sum)
            dv[..., at] = transpose(do_rows) @ narrow(s)
            dz = s * (narrow_ds(do_rows @ v[..., at]) - delta)
            dbias.append(dz)
            dt = narrow(slope * dz)
            dq += dt @ transpose(k[..., at])
            dk[..., at] = scale * (q @ dt)
        dbias = None if bias is None else sum_to(np.concatenate(dbias, axis=-1), bias.shape)
        weights = None if sink is None else exp(unit * sink[..., None, None] - log_sum)
        dsink = None if sink is None else sum_to(-(weights * delta)[..., 0], (*sink.shape, 1))[..., 0]
        return scale * transpose(dq), dk, dv, dbias, dsink

    handed_out = narrow(np.where(dead, -np.inf, log_sum / unit)[..., 0].astype(q.dtype))
    return (transpose(o), handed_out), backward


def transpose(a):
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)


# Convolutions and linear layers


def convolution_by_taps(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Convolve tap by tap, into sums that start at the bias; weight gradients are added up image by image."""
    stride, padding, dilation = (a if isinstance(a, tuple) else (a, a) for a in (stride, padding, dilation))
    (batch, _, *size), (out, _, *kernel) = x.shape, weight.shape
    wide = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    result = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    taps = {
        (i, j): (
            ...,
            slice(i * dilation[0], i * dilation[0] + stride[0] * (result[0] - 1) + 1, stride[0]),
            slice(j * dilation[1], j * dilation[1] + stride[1] * (result[1] - 1) + 1, stride[1]),
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    }

    def grouped(a):
        return a.reshape(batch, groups, a.shape[1] // groups, -1)

    matrices = {tap: weight[:, :, *tap].reshape(groups, out // groups, -1) for tap in taps}
    y = np.zeros_like(x, shape=(batch, groups, out // groups, result[0] * result[1]))
    if bias is not None:
        y += bias.reshape(groups, -1, 1)
    for tap, at in taps.items():
        y += matrices[tap] @ grouped(wide[at])

    def backward(dy):
        dz = grouped(dy)
        dwide, dweight = np.zeros_like(wide), np.zeros_like(weight)
        for tap, at in taps.items():
            dwide[at] += (transpose(matrices[tap]) @ dz).reshape(dwide[at].shape)
            read = grouped(wide[at])
            for image in range(batch):
                dweight[:, :, *tap] += (dz[image] @ transpose(read[image])).reshape(out, -1)
        dx = dwide[..., padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
        return dx, dweight, None if bias is None else dy.sum(axis=(2, 3)).sum(axis=0)

    return y.reshape(batch, out, *result), backward


def fully_connected_by_images(x, weight, bias=None):
    """Map rows linearly, input by input; weight gradients are added up image by image."""
    matrix = weight.reshape(weight.shape[:2])
    z = np.zeros_like(x, shape=(len(x), len(matrix)))
    if bias is not None:
        z += bias
    for column, weights in zip(x.T, matrix.T, strict=True):
        z += column[:, None] * weights

    def backward(dz):
        dmatrix = np.zeros_like(matrix)
        for row, drow in zip(x, dz, strict=True):
            dmatrix += drow[:, None] * row
        return dz @ matrix, dmatrix.reshape(weight.shape), None if bias is None else dz.sum(axis=0)

    return z, backward


# Normalisation


def norm_in_one_pass(
    x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5, refuse=lambda mean, variance: None
):
    """Normalise as the line y = a x + b, with the variance as the mean square less the squared mean.

    `refuse` is shown mean and variance of a batch: that difference loses digits where the mean is the larger.
    """
    axes, count = (0, 2, 3), x.size // x.shape[1]
    running = mean, variance = running_mean, running_var
    if training:
        mean = x.mean(axis=axes)
        variance = np.maximum((x * x).mean(axis=axes) - mean * mean, 0)
        refuse(mean, variance)
        new = mean, variance * (count / (count - 1))
        running = tuple((1 - momentum) * a + momentum * b for a, b in zip(running, new, strict=True))
    scale = 1 / np.sqrt(variance + eps)
    slope = weight * scale
    y = x * slope[:, None, None] + (bias - mean * slope)[:, None, None]

    def backward(dy):
        centred = x - mean[:, None, None]
        dweight, dbias = scale * (dy * centred).sum(axis=axes), dy.sum(axis=axes)
        dx = dy * slope[:, None, None]
        if training:
            tilt = slope * scale * dweight / count
            dx -= x * tilt[:, None, None] + (slope * dbias / count - tilt * mean)[:, None, None]
        return dx, dweight, dbias

    return (y, running), backward


# Functions of one number


def sigmoid_by_tanh(x):
    """Compute σ(x) = (1 + tanh(x/2)) / 2: below 0 it cancels, by float32's unit beside 1."""
    y = (1 + np.tanh(x / 2)) / 2
    return y, lambda dy: dy * y * (1 - y)


def powers_of_2():
    """Return exponential and logarithm to base e as they are made of those to base 2."""

    def exp(x, out=None):
        return np.exp2(x * np.asarray(LOG2_E, x.dtype), out=out)

    def log(x):
        return np.log2(x) * np.asarray(1 / LOG2_E, x.dtype)

    return {"exp": exp, "log": log}


def imprecise():
    """Return functions whose errors, which hang on the argument, reach 2 ulp of float32."""

    def spoilt(function):
        def approximate(x, out=None):
            wide = np.asarray(x, np.float64)
            error = 1.5 * 2.0**-24 * np.sin(41 * np.where(np.isfinite(wide), wide, 0))
            y = (function(wide) * (1 + error)).astype(np.result_type(x))
            if out is None:
                return y
            out[...] = y
            return out

        return approximate

    return {name: spoilt(getattr(np, name)) for name in ("exp", "log", "sqrt")}


# Gradients as textbooks have them


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: dy * (y * (1 - y))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y = e / e.sum(axis=axis, keepdims=True)
    return y, lambda dy: y * (dy - (y * dy).sum(axis=axis, keepdims=True))


def l2_normalize(x, eps=1e-5):
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    u = x / (norm + eps)

    def backward(du):
        nonzero = np.where(norm == 0, 1, norm)
        return (du - u * (u * du).sum(axis=1, keepdims=True) * ((norm + eps) / nonzero)) / (norm + eps)

    return u, backward


def global_lp_pool(x):
    p = np.sqrt((x * x).sum(axis=(2, 3)))

    def backward(dp, accumulate_into=None):
        dx = x * np.where(p == 0, 0, dp / np.where(p == 0, 1, p))[:, :, None, None]
        return dx if accumulate_into is None else accumulate_into + dx

    return p, backward


def batch_norm(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    axes, count = (0, 2, 3), x.size // x.shape[1]
    (_, running), back = reference_norm(
        x, weight, bias, running_mean, running_var, training=training, momentum=momentum, eps=eps
    )
    mean, variance = (x.mean(axis=axes), x.var(axis=axes)) if training else (running_mean, running_var)
    deviation = np.sqrt(variance + eps)
    normal = (x - mean[:, None, None]) / deviation[:, None, None]
    y = normal * weight[:, None, None] + bias[:, None, None]

    def backward(dy):
        if not training:
            return back(dy)
        dnormal = dy * weight[:, None, None]
        inner = (dnormal * normal).sum(axis=axes)[:, None, None]
        dx = (count * dnormal - dnormal.sum(axis=axes)[:, None, None] - normal * inner) / count
        return dx / deviation[:, None, None], (dy * normal).sum(axis=axes), dy.sum(axis=axes)

    return (y, running), backward


def dot_product_attention(q, k, v, scale=1.0):
    s, back_softmax = softmax((transpose(q) @ k) * scale)

    def backward(do):
        dz = back_softmax(transpose(do) @ v) * scale
        return k @ transpose(dz), q @ dz, do @ s

    return v @ transpose(s), backward


def affinity_sums(u, v):
    raw = transpose(u) @ u
    a = np.maximum(raw, 0)

    def backward(dt, ds):
        da = (transpose(v) @ dt + ds) * (raw > 0)
        return u @ da + u @ transpose(da), dt @ transpose(a)

    return (v @ a, a.sum(axis=-2, keepdims=True)), backward


textbook = {
    function.__name__: function
    for function in (
        sigmoid,
        softmax,
        l2_normalize,
        global_lp_pool,
        batch_norm,
        dot_product_attention,
        affinity_sums,
    )
}
"""Primitives with all weights and affinities held at once, and with gradients in the form that textbooks have."""


# Averages that a softmax's gradient is taken from


def weighing(*, narrow_ds=None, narrow_delta=None, narrow_o=None):
    """Return primitives of which softmax takes from its gradient an average that is made apart from it.

    With `narrow_ds` the gradient is rounded and its average is not, with `narrow_delta` the other way round. With
    `narrow_o` the average is made of what the weights have gathered, rounded, where a product has done so.
    """
    told = {}

    def softmax(x, axis=-1):
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        y = e / e.sum(axis=axis, keepdims=True)

        def backward(dy):
            delta = (y * dy).sum(axis=axis, keepdims=True)
            delta = told.get(memory(y, axis), delta).reshape(delta.shape)
            return y * ((narrow_ds(dy) if narrow_ds else dy) - (narrow_delta(delta) if narrow_delta else delta))

        return y, backward

    def tell(weights, axis, o, do, summed):
        if narrow_o:
            told[memory(weights, axis)] = (narrow_o(o) * do).sum(axis=summed)

    def matmul(a, b):
        c = a @ b

        def backward(dc):
            tell(a, -1, c, dc, -1)
            tell(b, -2, c, dc, -2)
            return dc @ transpose(b), transpose(a) @ dc

        return c, backward

    def linear_attention(q, k, v, scale=1.0):
        g, back_gather = matmul(scale * v, transpose(k))
        o, back_distribute = matmul(narrow_o(g) if narrow_o else g, q)

        def backward(do):
            dg, dq = back_distribute(do)
            dv, dk = back_gather(dg)
            return dq, transpose(dk), scale * dv

        return o, backward

    def criss_cross_attention(q, k, v):
        s, back_softmax = softmax(np.where(criss_cross.is_itself(q), -np.inf, criss_cross.products(q, k)))
        o = criss_cross.gather_on_lines(v, s)

        def backward(do):
            tell(s, -1, o, do, -3)
            dz = back_softmax(criss_cross.products(do, v))
            return (
                criss_cross.gather_on_lines(k, dz),
                criss_cross.scatter_on_lines(q, dz),
                criss_cross.scatter_on_lines(do, s),
            )

        return o, backward

    functions = (softmax, matmul, linear_attention, criss_cross_attention)
    return {function.__name__: function for function in functions}


def memory(a, axis):
    """Tell where an array's numbers stand, and how those along an axis do."""
    owner = a
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return id(owner), a.shape[axis], a.strides[axis]


# Windows


def integral_windows(x, window, stride):
    """Average over windows by differences of the sums over all that lies above and to the left."""
    _, backward = window_average(x, window, stride)
    height, width = (min(window, n) for n in x.shape[2:])
    sums = np.pad(x.cumsum(axis=2).cumsum(axis=3), ((0, 0), (0, 0), (1, 0), (1, 0)))
    rows, columns = (np.array(window_starts(n, window, stride)) for n in x.shape[2:])

    def read(i, j):
        return sums[:, :, (rows + i)[:, None], columns + j]

    total = read(height, width) - read(0, width) - read(height, 0) + read(0, 0)
    return total / (height * width), backward


# One rounding a primitive


def rounding_between(format):
    """Return all primitives, each in float32 inside, with value and gradients rounded to the format.

    Sigmoid and softmax keep their rounded value alone, and make their gradients of it.
    """
    narrow = narrowing(format)

    def rounded(primitive):
        @functools.wraps(primitive)
        def run(*args, **options):
            value, backward = primitive(*args, **options)

            def back(*dy, accumulate_into=None):
                found = narrow(backward(*dy))
                return found if accumulate_into is None else accumulate_into + found

            return narrow(value), back

        return run

    def kept(function, gradient):
        def run(x, axis=-1):
            y = narrow(function(x)[0] if function is sigmoid else function(x, axis)[0])
            return y, lambda dy: narrow(gradient(y, dy, axis))

        return run

    own = {
        "accumulate": lambda *gradients: narrow(ops.accumulate(*gradients)),
        "sigmoid": kept(sigmoid, lambda y, dy, axis: dy * (y * (1 - y))),
        "softmax": kept(softmax, lambda y, dy, axis: y * (dy - (y * dy).sum(axis=axis, keepdims=True))),
    }
    names = [name for name in ops.__all__ if name.islower() and name != "window_starts"]
    return {name: own.get(name) or rounded(getattr(ops, name)) for name in names}
