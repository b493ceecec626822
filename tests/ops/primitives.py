"""How a primitive's hand-written derivative is judged: entry by entry against the complex step."""

import numpy as np

from npattn.module import as_tuple
from npattn.oracle.gradcheck import STEP, jacobian_errors


def worst_error(primitive, *arrays):
    """Return the largest relative error of any entry of the Jacobian with respect to any of the arrays."""
    value, backward = primitive(*arrays)

    def jvp(i, v):
        lifted = [array + 1j * STEP * (v if j == i else 0) for j, array in enumerate(arrays)]
        return [primitive(*lifted)[0].imag / STEP]

    def vjp(dy):
        return dict(enumerate(as_tuple(backward(dy[0]))))

    shapes = {i: array.shape for i, array in enumerate(arrays)}
    return max(jacobian_errors(jvp, vjp, shapes, [value], None).values())


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def torch_gradients(function, dy, *arrays):
    """Run a PyTorch function on the arrays: its value and its gradients by autograd."""
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = function(*tensors)
    value.backward(torch.tensor(dy))
    return value.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]
