"""Mistakes that stand in several steps at once: steps in the wrong order, a factor in the wrong place."""

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.elementwise import logistic
from npattn.oracle.mistakes.mistake import Mistake, mistake
from npattn.oracle.mistakes.planting import answering

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def pools_networks(module, *_):
    """Whether the sum of a network's answers for several pools goes through a sigmoid."""
    gated = getattr(module, "key", None) in {"cbam", "cbam-channel", "flexible"}
    return gated and len(getattr(module, "pools", "ab")) > 1


def is_scaled(module, *_):
    """Whether what is added to the map is scaled by one learnt number."""
    return any(name.split(".")[-1] == "gamma" for name in module.parameter_shapes())


def blocks_of(z, u):
    """Cut rows into one block for each pool; None where there are not several."""
    return u.reshape(-1, *z.shape) if z.ndim == 2 and len(u) > len(z) and len(u) % len(z) == 0 else None


def sigmoid_first(run, *given):
    """Take the sigmoid of each pool's answer, and add up the gates."""
    left = {}

    def spoil(primitive, arguments, options):
        if primitive is ops.linear:
            left["u"], back = primitive(*arguments, **options)

            def back_linear(dz):
                return back(left.pop("du", dz))

            return left["u"], back_linear
        blocks = blocks_of(arguments[0], left["u"]) if primitive is ops.sigmoid and "u" in left else None
        if blocks is None:
            return NotImplemented
        s = logistic(blocks)

        def back_sigmoid(da):
            left["du"] = (s * (1 - s) * da).reshape(-1, s.shape[-1])
            return np.zeros_like(da)

        return s.sum(axis=0), back_sigmoid

    with answering(spoil):
        return run(*given)


def pools_added_first(run, module, params, inputs, upstream):
    """Send the sum of the pools through the network, once."""
    batch = len(next(iter(inputs.values())))
    first = []

    def spoil(primitive, arguments, options):
        x = arguments[0]
        if primitive is not ops.linear or len(x) == batch:
            return NotImplemented
        if not first:
            first.append(True)
            summed = np.concatenate([x.reshape(-1, batch, x.shape[1]).sum(axis=0)] * (len(x) // batch))
            y, back = primitive(summed, *arguments[1:], **options)

            def back_first(dz):
                dx, *rest = back(dz)
                return np.concatenate([dx.reshape(-1, batch, dx.shape[1]).sum(axis=0)] * (len(x) // batch)), *rest

            return y, back_first
        y, back = primitive(*arguments, **options)
        own = (np.arange(len(y)) < batch).astype(y.dtype)[:, None]
        return y * own, lambda dz: back(dz * own)

    with answering(spoil):
        return run(module, params, inputs, upstream)


def residual_scaled(run, *given):
    """Scale the map that is added as well."""
    left = {}

    def spoil(primitive, arguments, options):
        if primitive is ops.gate and arguments[1].size == 1:
            y, back = primitive(*arguments, **options)
            left["gamma"] = arguments[1]

            def back_gate(de):
                dx, da = back(de)
                return dx, da + left.pop("more", 0)

            return y, back_gate
        if primitive is not ops.add or "gamma" not in left or len(arguments) != 2:
            return NotImplemented
        x, e = arguments
        gamma = left.pop("gamma")

        def back_add(dy):
            left["more"] = (dy * x).sum()
            return dy * gamma, dy

        return gamma * x + e, back_add

    with answering(spoil):
        return run(*given)


TUNED_ON: list[Mistake] = []
HELD_OUT: list[Mistake] = []
ADDED = [
    mistake("", "sigmoid before the sum of the pools", "carried", sigmoid_first, pools_networks),
    mistake("", "pools added before the shared layers", "carried", pools_added_first, pools_networks),
    mistake("", "γ on the residual as well", "carried", residual_scaled, is_scaled),
]
