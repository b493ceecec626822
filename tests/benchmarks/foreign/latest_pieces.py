"""What the fourth set's systems are made of besides the kernels of the second."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone
from tests.benchmarks.foreign.pieces import torch

FLAT = (0, 2, 3)
"""What batch norm takes its statistics over."""


def backward_alone(right, wrong):
    """Take the right value, and the wrong one's gradient."""
    return forward_alone(wrong, right)


def add_in_order(a, dtype=torch.bfloat16):
    """Add up the last axis, one number after the other, in a narrow format."""
    total = torch.zeros_like(a[..., 0])
    for part in a.unbind(-1):
        total = (total + part).to(dtype).to(a.dtype)
    return total


def standardised(x, p, name, mean, variance):
    """Batch norm by given statistics of the channels."""
    mean, variance, weight, bias = (a[:, None, None] for a in (mean, variance, p[f"{name}.weight"], p[f"{name}.bias"]))
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def by_running(x, p, name):
    """Batch norm at inference."""
    return standardised(x, p, name, p[f"{name}.running_mean"], p[f"{name}.running_var"])


def joined(z, v):
    """Average the values by the softmax of logits."""
    return torch.softmax(z, -1) @ v


def narrowed(a):
    """Round to bfloat16."""
    return a.to(torch.bfloat16).to(a.dtype)


def online(z, v, size, *, rescale=True):
    """Softmax attention tile by tile, with a running maximum."""
    top = torch.full_like(z[..., :1], -torch.inf)
    total, o = torch.zeros_like(top), torch.zeros_like(z[..., :1] * v[..., :1, :])
    for i in range(0, z.shape[-1], size):
        part = z[..., i : i + size]
        new = torch.maximum(top, part.amax(-1, keepdim=True))
        e, factor = torch.exp(part - new), torch.exp(top - new)
        total = total * factor + e.sum(-1, keepdim=True)
        o = o * (factor if rescale else 1) + e @ v[..., i : i + size, :]
        top = new
    return torch.where(total > 0, o / total, 0 * o)
