"""Comparison of a whole system with the published PyTorch form of it."""

import numpy as np


def assert_parity(module, reference, params, x, dy):
    """Hold output and every gradient against those that autograd finds for a PyTorch module with the same parameters.

    They agree to 1e-11 of the largest number of each tensor.
    """
    import torch

    reference = reference.double()
    reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    leaf = torch.tensor(x, requires_grad=True)
    expected = reference(leaf)
    expected.backward(torch.tensor(dy))
    run = module(params, x)
    dx, grads = run.backward(dy)
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {"output": (run.output, expected), "x": (dx, leaf.grad)}
    pairs |= {name: (grads[name], parameter.grad) for name, parameter in reference.named_parameters()}
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max() + 1e-300, err_msg=name)
