"""What several systems are held to: the published PyTorch form, and the order of positions."""

import hypothesis
import numpy as np
import pytest

from npattn.oracle import generic_values


def in_pytorch(name):
    """The published form of an activation or gate, in PyTorch."""
    import torch

    return {
        "hard_sigmoid": lambda z: torch.nn.functional.relu6(z + 3) / 6,
        "hard_swish": lambda z: z * torch.nn.functional.relu6(z + 3) / 6,
        "silu": lambda z: z * torch.sigmoid(z),
        "gelu": torch.nn.functional.gelu,
        "leaky_relu": torch.nn.functional.leaky_relu,
    }.get(name) or getattr(torch, name)


def assert_parity(module, reference, params, x, dy, *, floor=0, constants=()):
    """Hold output and every gradient against those that autograd finds for a PyTorch module with the same parameters.

    They agree to 1e-11 of the largest number of each tensor, or of `floor` times the largest of all gradients where the
    tensor is smaller than that: a gradient may be 0 but for rounding. In training the running statistics agree as well.
    `constants` are further inputs, for which there is no gradient.
    """
    import torch

    reference = reference.double()
    reference.load_state_dict({name: torch.as_tensor(value) for name, value in (params | counters(reference)).items()})
    leaf = torch.tensor(x, requires_grad=True)
    try:
        expected = reference(leaf, *map(torch.tensor, constants))
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        hypothesis.reject()  # of one number PyTorch takes no variance
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


def assert_parity_in(case, published, seed, *, floor=0):
    """Hold a case of a system to its PyTorch form, as `assert_parity`, under a random upstream gradient."""
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=floor)


def counters(reference):
    """The numbers of batches that PyTorch's batch norms have counted, which have no counterpart here."""
    return {name: value for name, value in reference.state_dict().items() if name.endswith("num_batches_tracked")}


def assert_state_dict_loads(module, reference, inputs=None, *, prefix="", atol=1e-6):
    """Load a PyTorch module's `state_dict` as it is: names, order, dtype, and the output on a map or these inputs."""
    import torch

    state = {f"{prefix}{name}": value for name, value in reference.state_dict().items()}
    params = module.from_state_dict(state, prefix)
    buffers = [name for name, _ in reference.named_buffers() if name not in counters(reference)]
    assert list(params) == [name for name, _ in reference.named_parameters()] + buffers
    assert all(value.dtype == np.float32 for value in params.values())
    if inputs is None:
        inputs = [np.random.RandomState(0).standard_normal((2, module.channels, 6, 5)).astype(np.float32)]
    expected = reference(*map(torch.tensor, inputs)).detach().numpy()
    np.testing.assert_allclose(module(params, *inputs).output, expected, rtol=1e-5, atol=atol)


def assert_starts_as_identity(module):
    """Hold that at the start a map passes as it is, forward and backward, and that of all parameters only γ learns."""
    params, x = module.init(), generic_values(module)[1]["x"]
    run = module(params, x)
    np.testing.assert_array_equal(run.output, x)
    dx, grads = run.backward(x)
    np.testing.assert_array_equal(dx, x)
    assert grads.pop("gamma")
    assert not any(grad.any() for grad in grads.values())


def assert_runs(module, batch, height, width):
    """Hold that a map of such a size, an empty batch too, passes forward and backward; return parameters and map."""
    params, inputs = generic_values(module, batch=1, height=height, width=width)
    x = inputs["x"][:batch]
    run = module(params, x)
    dx, grads = run.backward(run.output)
    assert dx.shape == run.output.shape == x.shape
    assert {name: grad.shape for name, grad in grads.items()} == module.parameter_shapes()
    return params, x


def assert_starts_as(module, published):
    """Hold initial values to those that PyTorch draws for `published(module)`: as spread out, and as far from 0.

    They are uniform or constant, so the largest of n comes within a few n-ths of its bound.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = {name: tensor.numpy() for name, tensor in published(module).state_dict().items()}
    for name, ours in module.init(seed=1).items():
        assert ours.std() == pytest.approx(theirs[name].std(), rel=2 / ours.size**0.5), name
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs[name]).max(), rel=10 / ours.size), name


def rearranged(x, order):
    """Put a map's positions, row by row, into another order."""
    return x.reshape(*x.shape[:2], -1)[:, :, order].reshape(x.shape)


def assert_rearranged_alike(module, params, x, random):
    """Hold a system that knows no neighbours to it: positions in another order give outputs in that order."""
    order = list(range(x.shape[2] * x.shape[3]))
    random.shuffle(order)
    output = module(params, x).output
    np.testing.assert_allclose(
        module(params, rearranged(x, order)).output, rearranged(output, order), rtol=1e-10, atol=1e-11
    )
