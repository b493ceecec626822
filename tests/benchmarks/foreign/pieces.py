"""What PyTorch forms are made of, and the list in which their mistakes stand."""

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

MISTAKES = []
"""Tuples (system's key, hyperparameters, function, names); without hyperparameters the class's example is meant."""


def mistake(key, *names, **hyperparameters):
    """List a function `(params, *inputs)` as a system with one mistake in it."""

    def register(function):
        MISTAKES.append((key, hyperparameters, function, names))
        return function

    return register


class ByHand(torch.autograd.Function):
    """A function of one tensor with its gradient as somebody wrote it."""

    @staticmethod
    def forward(ctx, x, value, gradient):
        y = value(x)
        ctx.save_for_backward(x, y)
        ctx.gradient = gradient
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.gradient(dy, *ctx.saved_tensors), None, None


def by_hand(x, value, gradient):
    """Return value(x), whose backward is gradient(dy, x, y)."""
    return ByHand.apply(x, value, gradient)


def backwards(x, change):
    """Return x, whose gradient comes back changed."""
    return ByHand.apply(x, torch.clone, lambda dy, *_: change(dy))


def changed(p, change, names=None):
    """Return parameters whose gradients, or those of some names, come back changed; buffers stay what they are."""
    return {n: backwards(a, change) if a.requires_grad and (names is None or n in names) else a for n, a in p.items()}


def under(p, prefix):
    """Those parameters whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): a for name, a in p.items() if name.startswith(prefix)}


def constant(a):
    """A tensor that no gradient flows through."""
    return a.detach()


def average(x):
    return x.mean((2, 3))


def largest(x):
    return x.flatten(2).max(2).values


def linear(u, p, name):
    return F.linear(u, p[f"{name}.weight"].flatten(1), p.get(f"{name}.bias"))


def gate(x, a):
    return x * a[:, :, None, None]


def pointwise(x, p, name):
    """A 1×1 convolution."""
    weight = p[f"{name}.weight"]
    return F.conv2d(x, weight.reshape(*weight.shape[:2], 1, 1), p.get(f"{name}.bias"))


def same(x, weight, rate=1):
    """A convolution that keeps the map's size."""
    return F.conv2d(x, weight, padding=rate * (weight.shape[-1] // 2), dilation=rate)


def norm(x, p, name, training=False, *, momentum=0.1, eps=1e-5):
    """Batch norm; in training it writes the new running statistics to the tensors of the old."""
    mean, variance, weight, bias = (p[f"{name}.{word}"] for word in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)


def scaled_residual(x, o, gamma):
    return x + gamma * o


def weights(z):
    return torch.softmax(z, -1)


def without_rowsum(z):
    """Softmax whose gradient, written by hand, lacks the sum over the row."""
    return by_hand(z, weights, lambda dy, _, y: y * dy)


def as_nhwc(x):
    """A map's numbers in the order of memory, read as if the channels stood last."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def from_nhwc(y, shape):
    """The same numbers, written with the channels last and read as if they stood second."""
    return y.permute(0, 2, 3, 1).reshape(shape)
