"""Systems in PyTorch, and mistakes in them as authors of kernels and ports make them.

Whoever wrote these has not read what this package knows of mistakes, so they tell how well `diagnose` names bugs that
it was not made for. Each is a function `(params, *inputs)` of tensors which returns the output, or a tuple of outputs;
autograd gives the gradients that go with it. In training, new running statistics are written to the tensors of the old.
"""

from tests.benchmarks.foreign import (
    affinities,
    bottleneck,
    branches,
    cbam,
    channel,
    choices,
    coordinate,
    dual,
    efficient_channel,
    energies,
    fresh,
    gathering,
    global_context,
    heads,
    latest,
    masked_heads,
    masked_products,
    position,
    products,
    recent,
    several_pools,
    skipping,
    spatial_gate,
    spatial_group,
    squeeze_excitation,
    windows,
)
from tests.benchmarks.foreign.kinds import KINDS as OF_FIRST
from tests.benchmarks.foreign.pieces import MISTAKES, torch

KINDS = OF_FIRST | fresh.KINDS | recent.KINDS | latest.KINDS
"""Of all sets."""

FORMS = {
    "se": squeeze_excitation.se,
    "eca": efficient_channel.eca,
    "ge": gathering.ge,
    "flexible": several_pools.flexible,
    "cbam": cbam.cbam,
    "cbam-channel": several_pools.cbam_channel,
    "cbam-spatial": spatial_gate.cbam_spatial,
    "bam": bottleneck.bam,
    "coordinate": coordinate.coordinate,
    "simam": energies.simam,
    "sge": spatial_group.sge,
    "pam": position.pam,
    "cam": channel.cam,
    "danet": dual.danet,
    "gc": global_context.gc,
    "mhsa": heads.mhsa,
    "sdpa": products.sdpa,
    "sliding-window": windows.sliding_window,
    "flexible-segmentation": windows.flexible_segmentation,
    "multi-scale": branches.multi_scale,
    "residual": skipping.residual,
    "hard": choices.hard,
    "soft-hard": choices.soft_hard,
    "pcm": affinities.pcm,
    **recent.FORMS,
}
"""The systems without a mistake: functions as those, with the hyperparameters that change the computation by name."""


def results(module, function, params, inputs, upstream):
    """Call a function on NumPy arrays: outputs, gradients and new running statistics, by the names that reports use.

    `upstream` holds the outputs' gradients by the outputs' names.
    """
    buffers = module.buffers()
    p = {name: torch.tensor(a, requires_grad=name not in buffers) for name, a in params.items()}
    given = {name: torch.tensor(a, requires_grad=name not in module.without_gradient) for name, a in inputs.items()}
    outputs = function(p, *given.values())
    outputs = dict(zip(upstream, outputs if isinstance(outputs, tuple) else [outputs], strict=True))
    torch.autograd.backward(list(outputs.values()), [torch.tensor(upstream[name]) for name in outputs])
    found = outputs | {name: p[name] for name in buffers if getattr(module, "training", False)}
    for name, leaf in (p | given).items():
        if leaf.requires_grad:
            found[f"{name}.grad"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {name: a.detach().numpy() for name, a in found.items()}


__all__ = ["FORMS", "KINDS", "MISTAKES", "fresh", "latest", "masked_heads", "masked_products", "recent", "results"]
