"""How primitives are judged: derivatives entry by entry by the complex step, faster ways by definitions."""

import importlib
import pkgutil
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

import npattn.fast
from npattn.fast import affinity, attention, products
from npattn.module import as_tuple
from npattn.ops.context import definitions
from npattn.oracle.gradcheck import STEP

FAST = [importlib.import_module(f"npattn.fast.{info.name}") for info in pkgutil.iter_modules(npattn.fast.__path__)]


@contextmanager
def patched(name, value):
    """Give a name another value in every module of faster ways that knows it."""
    knowing = [module for module in FAST if hasattr(module, name)]
    assert knowing, f"no faster way knows {name}"
    with pytest.MonkeyPatch.context() as patch:
        for module in knowing:
            patch.setattr(module, name, value)
        yield patch


@contextmanager
def in_blocks(count=4, tiles=(12, 2, (3, 2))):
    """Have the smallest maps computed in the faster ways, block by block, on so many threads."""
    with (
        patched("MIN_PARALLEL_SIZE", 1),
        patched("MIN_THREADED_SIZE", 1),
        patched("num_threads", lambda: count),
        patched("MIN_MULTIPLICATIONS", 1),
        patched("MIN_BLOCK_MULTIPLICATIONS", 1),
        patched("MAX_PRODUCT_BLOCKS", 8),
        patched("MIN_IMAGES", 2),
        patched("MIN_UNCACHED_SIZE", 1),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(products, "MIN_SERIAL", 1)
        sizes = dict(zip(("BLOCK_LOGITS", "MIN_QUERIES"), tiles, strict=False))
        sizes |= dict(zip(("BLOCK_QUERIES", "BLOCK_KEYS"), tiles[2], strict=True))
        for name, value in sizes.items():
            patch.setattr(attention, name, value)
        patch.setattr(affinity, "BLOCK_ROWS", tiles[0])
        patch.setattr(affinity, "BLOCK_COLUMNS", tiles[1])
        yield


def way_taken(primitive, *arguments, **options):
    """Tell by name which way computes a call."""
    suiting = (way.compute.__name__ for way in primitive.ways if way.suits(*arguments, **options))
    return next(suiting, "definition")


def run_both(primitive, *arrays, dy=None):
    """Run a primitive in its faster ways and by definition: for each, its value and its gradients."""
    found = []
    for way in (in_blocks, definitions):
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
