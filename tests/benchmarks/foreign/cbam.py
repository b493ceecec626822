"""CBAM, and mistakes in how its gates work together."""

from functools import partial

from tests.benchmarks.foreign.pieces import constant, gate, mistake, same, torch, under
from tests.benchmarks.foreign.several_pools import cbam_channel
from tests.benchmarks.foreign.spatial_gate import average, cbam_spatial, described, largest


def cbam(p, x, training=False, *, first=cbam_channel, second=cbam_spatial):
    return second(under(p, "SpatialGate."), first(under(p, "ChannelGate."), x), training)


@mistake("cbam", "order", "spatial first", "before")
def cbam_spatial_gate_first(p, x):
    """Order: the spatial gate stands before the channel gate."""
    return cbam_channel(under(p, "ChannelGate."), cbam_spatial(under(p, "SpatialGate."), x))


@mistake("cbam", "parallel", "ungated", "side by side")
def cbam_gates_in_parallel(p, x):
    """Order: the spatial gate looks at the input, not at the map that the channel gate has weighed."""
    gated = cbam_channel(under(p, "ChannelGate."), x)
    return cbam_spatial(under(p, "SpatialGate."), x) / x * gated


@mistake("cbam", "sigmoid", "left out", "missing")
def cbam_channel_gate_without_sigmoid(p, x):
    """Channel gate: the sigmoid is left out."""
    return cbam(p, x, first=partial(cbam_channel, join=sum))


@mistake("cbam", "residual", "input added", "skip")
def cbam_residual_added(p, x):
    """Output: the input is added, as the block around the module does."""
    return x + cbam(p, x)


@mistake("cbam", "channel gate left out", "left out", "spatial alone")
def cbam_without_channel_gate(p, x):
    """Channel gate: its gates are computed and not applied."""
    return cbam(p, x, first=lambda p, x: x + 0 * cbam_channel(p, x))


@mistake("cbam", "input", "gated twice", "ungated")
def cbam_spatial_gate_multiplies_the_input(p, x):
    """Spatial gate: looks at the weighed map and multiplies the input, so that the channel gates are lost."""
    gated = cbam_channel(under(p, "ChannelGate."), x)
    return cbam_spatial(under(p, "SpatialGate."), gated) / gated * x


@mistake("cbam", "detach", "constant", "cut", "descriptor", "SpatialGate / (11') conv2d: gradient: dx dropped")
def cbam_descriptor_detached(p, x):
    """Spatial gate's backward: nothing comes back through its convolution to the weighed map."""
    return cbam(p, x, second=partial(cbam_spatial, describe=lambda f: described(constant(f))))


@mistake("cbam", "sigmoid before", "sum of sigmoids", "before the sum")
def cbam_sigmoid_before_the_sum(p, x):
    """Channel gate: each pool's logits pass the sigmoid, and the gates are added."""
    return cbam(p, x, first=partial(cbam_channel, join=lambda z: sum(map(torch.sigmoid, z))))


@mistake("cbam", "order", "swapped", "exchanged")
def cbam_mean_before_maximum(p, x):
    """Spatial gate: the mean is the first channel and the maximum the second."""
    return cbam(p, x, second=partial(cbam_spatial, describe=lambda f: torch.cat([average(f), largest(f)], 1)))


@mistake("cbam", "transpose", "height and width", "H and W")
def cbam_spatial_gate_of_the_transposed_map(p, x):
    """Spatial gate: rows and columns of the map are exchanged in its convolution."""

    def conv(t, w):
        return same(t.transpose(2, 3), w).transpose(2, 3)

    return cbam(p, x, second=partial(cbam_spatial, conv=conv))


@mistake("cbam", "gate of the first channel", "shared", "channels", "broadcast")
def cbam_one_gate_for_all_channels(p, x):
    """Channel gate: the gate of the first channel multiplies them all."""
    return cbam(p, x, first=partial(cbam_channel, scale=lambda x, a: gate(x, a[:, :1])))
