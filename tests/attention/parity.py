"""Comparison of a whole system with the published PyTorch form of it."""

import numpy as np


def assert_parity(module, reference, params, x, dy, *, floor=0, constants=()):
    """Hold output and every gradient against those that autograd finds for a PyTorch module with the same parameters.

    They agree to 1e-11 of the largest number of each tensor, or of `floor` times the largest of all gradients where the
    tensor is smaller than that: a gradient may be 0 but for rounding. In training the running statistics agree as well.
    `constants` are further inputs, for which there is no gradient.
    """
    import torch

    reference = reference.double()
    reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    leaf = torch.tensor(x, requires_grad=True)
    expected = reference(leaf, *map(torch.tensor, constants))
    expected.backward(torch.tensor(dy))
    run = module(params, x, *constants)
    dx, grads = run.backward(dy)
    if constants:
        dx, *none = dx
        assert none == [None] * len(constants)
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {"output": (run.output, expected), "x": (dx, leaf.grad)}
    pairs |= {name: (grads[name], parameter.grad) for name, parameter in reference.named_parameters()}
    pairs |= {name: (run.buffers[name], buffer) for name, buffer in reference.named_buffers() if name in run.buffers}
    smallest = floor * max(np.abs(gradient).max() for gradient in (dx, *grads.values()))
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        scale = max(np.abs(theirs).max(), smallest)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * scale + 1e-300, err_msg=name)
