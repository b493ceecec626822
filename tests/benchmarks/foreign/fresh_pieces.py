"""Kernels with backwards written by hand, of which the second forms are made."""

from tests.benchmarks.foreign.pieces import F, torch


class Kernel(torch.autograd.Function):
    """A function of several tensors with its backward as somebody wrote it."""

    @staticmethod
    def forward(ctx, value, gradients, *tensors):
        y = value(*tensors)
        ctx.gradients = gradients
        ctx.save_for_backward(*tensors, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return None, None, *ctx.gradients(dy, *ctx.saved_tensors)


def kernel(value, gradients, *tensors):
    """Return value(*tensors), whose backward is gradients(dy, *tensors, y)."""
    return Kernel.apply(value, gradients, *tensors)


def forward_alone(right, wrong):
    """Take the wrong value, and the right one's gradient."""
    return right + (wrong - right).detach()


def stored(a, dtype=torch.bfloat16):
    """Round what is held in a narrow format; the gradient passes."""
    return forward_alone(a, a.to(dtype).to(a.dtype))


def whole(n, size):
    """Count what lies in whole tiles."""
    return n // size * size


def rows(x):
    """Lay positions out in a row: (B, C, H, W) to (B, C, N)."""
    return x.flatten(2)


def mean_backward(dy, x, y):
    return (dy.expand_as(x) * (y.numel() / x.numel()),)


def mean(x, dims=(2, 3), *, backward=mean_backward):
    return kernel(lambda x: x.mean(dims, keepdim=True), backward, x)


def maximum_backward(dy, x, y):
    dx = torch.zeros_like(rows(x))
    return (dx.scatter(2, rows(x).argmax(2, keepdim=True), rows(dy)).reshape(x.shape),)


def maximum(x, *, backward=maximum_backward):
    """The maximum over the positions, (B, C, 1, 1)."""
    return kernel(lambda x: x.amax((2, 3), keepdim=True), backward, x)


def affine_backward(dy, x, w, b, y):
    return dy @ w.flatten(1), (dy.T @ x).reshape(w.shape), dy.sum(0)


def affine(x, w, b, *, backward=affine_backward):
    return kernel(lambda x, w, b: x @ w.flatten(1).T + b, backward, x, w, b)


def relu_backward(dy, x, y):
    return (dy * (x > 0),)


def relu(x, *, backward=relu_backward):
    return kernel(torch.relu, backward, x)


def sigmoid_backward(dy, z, y):
    return (dy * y * (1 - y),)


def sigmoid(z, *, value=torch.sigmoid, backward=sigmoid_backward):
    return kernel(value, backward, z)


def gate_backward(dy, x, a, y):
    return dy * a, (dy * x).sum_to_size(a.shape)


def gate(x, a, *, value=torch.mul, backward=gate_backward):
    """Multiply a map by gates of as many axes, some of them of length 1."""
    return kernel(value, backward, x, a)


def softmax_backward(dy, z, y):
    return (y * (dy - (dy * y).sum(-1, keepdim=True)),)


def softmax(z, *, value=None, backward=softmax_backward):
    """Softmax along the last axis."""
    return kernel(value or (lambda z: torch.softmax(z, -1)), backward, z)


def conv_backward(dy, x, w, y, rate):
    margin = rate * (w.shape[2] // 2)
    options = {"padding": margin, "dilation": rate}
    return torch.nn.grad.conv2d_input(x.shape, w, dy, **options), torch.nn.grad.conv2d_weight(x, w.shape, dy, **options)


def conv(x, w, rate=1, *, backward=conv_backward):
    """A convolution that keeps the map's size."""
    margin = rate * (w.shape[2] // 2)
    return kernel(
        lambda x, w: F.conv2d(x, w, padding=margin, dilation=rate),
        lambda dy, x, w, y: backward(dy, x, w, y, rate),
        x,
        w,
    )


def conv_in_tiles(x, w, rate=1, *, height, width, halo):
    """Convolve tile by tile; of what lies beyond a tile `halo` rows and columns are loaded, the rest counts as 0."""
    margin = rate * (w.shape[2] // 2)
    y = torch.zeros_like(F.conv2d(x, w, padding=margin, dilation=rate))
    for i in range(0, x.shape[2], height):
        for j in range(0, x.shape[3], width):
            near = torch.zeros_like(x)
            part = slice(max(i - halo, 0), i + height + halo), slice(max(j - halo, 0), j + width + halo)
            near[:, :, *part] = x[:, :, *part]
            tile = torch.zeros_like(y[:1, :1])
            tile[:, :, i : i + height, j : j + width] = 1
            y = y + F.conv2d(near, w, padding=margin, dilation=rate) * tile
    return y


def attend_backward(do, q, k, v, o, *, scale):
    p = torch.softmax(scale * q @ k.mT, -1)
    dz = p * (do @ v.mT - (do * o).sum(-1, keepdim=True))
    return scale * dz @ k, scale * dz.mT @ q, p.mT @ do


def attend_forward(q, k, v, scale):
    return torch.softmax(scale * q @ k.mT, -1) @ v


def attend(q, k, v, scale=1.0, *, value=attend_forward, backward=attend_backward):
    """Softmax attention of (..., N, d)."""
    return kernel(
        lambda q, k, v: value(q, k, v, scale),
        lambda do, q, k, v, o: backward(do, q, k, v, o, scale=scale),
        q,
        k,
        v,
    )
