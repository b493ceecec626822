"""Kernels of which the third forms are made, beside those of the second."""

from tests.benchmarks.foreign.fresh_pieces import kernel
from tests.benchmarks.foreign.pieces import torch


def softmax_backward(dy, z, y, axis):
    return y * (dy - (dy * y).sum(axis, keepdim=True))


def softmax(z, axis, *, backward=softmax_backward):
    """Softmax along any axis."""
    return kernel(lambda z: torch.softmax(z, axis), lambda dy, z, y: (backward(dy, z, y, axis),), z)


def without_sum(dy, z, y, axis):
    return y * dy


def along(other):
    """The backward of a softmax that takes its sum along another axis."""
    return lambda dy, z, y, axis: softmax_backward(dy, z, y, other)


def mix_backward(dy, u, a, y):
    dy = dy[:, None]
    return dy * a[..., None, None], (dy * u).sum((3, 4))


def mix(u, a, *, backward=mix_backward):
    """Weigh maps, (B, M, C, H, W), by (B, M, C), and add them up."""
    return kernel(lambda u, a: (u * a[..., None, None]).sum(1), backward, u, a)


def gather_backward(dg, s, a, g):
    return dg.mT @ a, dg @ s


def gather(s, a, *, backward=gather_backward):
    """Let every map, of (..., n, N), weigh features, (..., m, N): descriptors, (..., m, n)."""
    return kernel(lambda s, a: a @ s.mT, backward, s, a)


def distribute_backward(do, g, w, o):
    return do @ w.mT, g.mT @ do


def distribute(g, w, *, backward=distribute_backward):
    """Mix descriptors, (..., m, n), by every position's weights, (..., n, N)."""
    return kernel(torch.matmul, backward, g, w)


def standard_backward(dy, u, n, eps):
    slope = (u.var((2, 3), correction=0, keepdim=True) + eps).rsqrt()
    return slope * (dy - dy.mean((2, 3), keepdim=True) - n * (dy * n).mean((2, 3), keepdim=True))


def standardised(u, correction=0, eps=1e-5):
    return (u - u.mean((2, 3), keepdim=True)) * (u.var((2, 3), correction=correction, keepdim=True) + eps).rsqrt()


def standard(u, *, eps=1e-5, backward=standard_backward):
    """Give every channel of every image mean 0 and variance 1."""
    return kernel(lambda u: standardised(u, eps=eps), lambda dy, u, n: (backward(dy, u, n, eps),), u)


def peak_backward(dy, t, y):
    return (torch.zeros_like(t).scatter(1, t.argmax(1, keepdim=True), dy),)


def peak(t, *, backward=peak_backward):
    """The maximum along the second axis, which stays with length 1."""
    return kernel(lambda t: t.amax(1, keepdim=True), backward, t)


def in_tiles(n, size):
    """Slices of so many elements; the last may have fewer."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


class Readers(torch.autograd.Function):
    """Three copies of a map, whose gradients come back joined."""

    @staticmethod
    def forward(ctx, x, back):
        ctx.back = back
        return x.clone(), x.clone(), x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return ctx.back(*gradients), None


def readers(x, back=lambda *gradients: sum(gradients)):
    """Hand a map to three readers, and give it what `back` makes of the three gradients."""
    return Readers.apply(x, back)
