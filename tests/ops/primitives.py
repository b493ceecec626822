"""How primitives are judged: derivatives entry by entry by the complex step, work in parts by work at once."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from npattn.module import as_tuple
from npattn.ops import (
    adding,
    attention,
    convolution,
    gating,
    kernel_rows,
    pooling,
    products,
    sweeping,
    windowing,
    winograd,
)
from npattn.oracle.gradcheck import STEP

SWEEPERS = adding, attention, convolution, gating, kernel_rows, pooling, products, sweeping, windowing, winograd


@contextmanager
def patched(name, value):
    """Give a name another value in every module that sweeps maps and knows the name."""
    with pytest.MonkeyPatch.context() as patch:
        for module in SWEEPERS:
            if hasattr(module, name):
                patch.setattr(module, name, value)
        yield patch


@contextmanager
def parted(count=4, tiles=(12, 2, (3, 2))):
    """Have the smallest maps swept, multiplied and attended to in parts, on so many threads."""
    with patched("ENOUGH", 1), patched("threads", lambda: count), patched("MANY", 1), pytest.MonkeyPatch.context() as p:
        p.setattr(products, "FEW", 1)
        for name, value in zip(("CORE_LOGITS", "CORE_QUERIES", "CORE_BLOCK"), tiles, strict=True):
            p.setattr(attention, name, value)
        yield


@contextmanager
def unparted():
    """Have everything done at once, on the caller's thread."""
    with patched("ENOUGH", 2**60), patched("threads", lambda: 1), patched("MANY", 2**60):
        yield


def run_both(primitive, *arrays, dy=None):
    """Run a primitive in parts and at once: for each, its value and its gradients."""
    found = []
    for way in (parted, unparted):
        with way():
            value, backward = primitive(*arrays)
            gradients = as_tuple(backward(value if dy is None else dy))
        found.append([value, *(g for g in gradients if g is not None)])
    return found


def warned(function, *arguments):
    """Call a function: what it returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        value = function(*arguments)
    return value, {(each.category, str(each.message)) for each in met}


def ulps(found, expected):
    """Measure how far arrays are apart, in units of the rounding of the largest number expected."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=np.finfo(expected.dtype).tiny)
    return float(np.abs(found.astype(float) - expected).max(initial=0) / (largest * np.finfo(expected.dtype).eps))


def worst_error(primitive, *arrays):
    """Return the largest relative error of any entry of the Jacobian with respect to any of the arrays.

    An entry below a hundredth of its array's root mean square may be a sum that nearly cancels: it is held to that.
    """
    value, backward = primitive(*arrays)
    rows = [as_tuple(backward(dy.reshape(value.shape))) for dy in np.eye(value.size)]
    worst = 0.0
    for i, array in enumerate(arrays):
        columns = []
        for v in np.eye(array.size):
            lifted = [a + 1j * STEP * (v.reshape(a.shape) if j == i else 0) for j, a in enumerate(arrays)]
            columns.append(primitive(*lifted)[0].imag.ravel() / STEP)
        exact, found = np.array(columns).T, np.array([row[i].ravel() for row in rows])
        size = np.maximum(np.abs(exact), 1e-2 * np.sqrt(np.mean(exact**2)))
        difference = np.abs(found - exact)
        worst = max(worst, np.max(np.divide(difference, size, out=np.zeros_like(size), where=difference != 0)))
    return worst


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def torch_gradients(function, dy, *arrays):
    """Run a PyTorch function on the arrays: its value and its gradients by autograd."""
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = function(*tensors)
    value.backward(torch.tensor(dy))
    return value.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]
