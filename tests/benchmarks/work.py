"""What the mathematics of each system needs: flops, and bytes that have to move.

Two rules bound a system from below. Its matrix products take their flops over the machine's rate of products. And every
map it reads or writes passes through memory, as often as what depends on what demands, if nothing else did: a gate is
known only when all of x has been read, so x is read again to be gated. The larger of the two is the bound.

Flops are those of matrix products and convolutions, two for a multiplication with its addition, and of what is done
for every element of a map; layers on pooled numbers are left out. Backward makes a gradient for both factors: twice the
products of forward, and the weights of an attention once more, as memory that grows with the number of positions alone
allows to keep no weights. A product that is symmetric counts half. Taps of a convolution beyond the map count nothing.
"""

import math

from npattn.ops.convolution import pair

__all__ = ["PRODUCTS", "count_work"]

PASSES = {
    "se": ((2, 3), (4, 4)),
    "eca": ((2, 3), (4, 4)),
    "ge": ((4, 3), (7, 4)),
    "flexible": ((3, 3), (4, 4)),
    "cbam": ((6, 4), (9, 6)),
    "cbam-channel": ((3, 3), (5, 4)),
    "cbam-spatial": ((3, 3), (4, 4)),
    "coordinate": ((4, 3), (8, 4)),
    "simam": ((8, 3), (16, 5)),
    "triplet": ((12, 3), (16, 4)),
    "sge": ((4, 4), (8, 5)),
    "gc": ((6, 4), (11, 5)),
    "shuffle": ((5, 3), (10, 4)),
    "residual": ((3, 3), (5, 4)),
    "sliding-window": ((1, 1), (1, 1)),
    "flexible-segmentation": ((4, 3), (4, 1)),
    "hard": ((2, 1), (5, 3)),
    "soft-hard": ((2, 1), (0, 1)),
}
"""Systems without large products: flops for each element of x, and passes over x, forward and backward.

A gate, forward: read x to pool, read x to gate, write y. Backward: read x and dy for the gate's gradient, read dy again
for dx, which needs that of the pool too, write dx. `cbam` forward reads x for the channel gate, again for what the
spatial gate pools, again for y; backward it reads x and dy for either gate's gradient, then dy again, and writes dx.
`simam` reads x for a channel's statistics, again for y; backward x and dy for two sums over the channel, again for dx.
`shuffle` reads x for a half's averages and the other's statistics, again for y; backward x and dy for the gates', dy
again for dx.
`triplet` reads x to pool along all axes, again to gate, and writes y; backward it reads x and dy for the gates'
gradients, dy again, and writes dx.
`sge` reads x for its averages, again to compare it with them, again to gate it, and writes y; backward x and dy for the
gate's gradient, x again for the averages', dy again, and writes dx.
`gc` forward reads x for the scores, again for what they weigh, again to gate and shift, and writes y; backward it reads
x and dy for the gate's gradient and the shift's, x again for that of the weights, dy again, and writes dx.
`flexible-segmentation` writes the gated map, as it hands it out; backward needs the windows' averages of it, no map.
`hard` reads x for the gradient of the selection, again for that of the scores, and writes dx; `soft-hard` needs a few
positions of x, and writes dx.
"""


def count_work(module, shape):
    """Count what a module needs for an input of this shape: (flops, numbers moved) of forward and of backward."""
    batch, channels, height, width = shape
    size = batch * channels * height * width
    if module.key == "sdpa":  # of height queries and width keys
        rows = batch * (module.heads * height + module.groups * width)
        size = rows * (module.head_dim + module.value_channels) / 2
    if module.key in PASSES:
        scores = batch * getattr(module, "classes", 0) * height * width  # which the two segmentations write, and read
        return [(flops * size, passes * size + scores) for flops, passes in PASSES[module.key]]
    forward, backward = (batch * flops for flops in PRODUCTS[module.key](module, channels, height, width))
    # x is read and y written; x and dy are read and dx written. That is little beside the products.
    return [(forward, 2 * size), (backward, 3 * size)]


def position(module, channels, height, width):
    n, narrow = height * width, max(1, channels // getattr(module, "reduction", 8))
    layers, both = 2 * n * channels * (2 * narrow + channels), 2 * n * n
    return layers + both * (narrow + channels), 2 * layers + both * (3 * narrow + 2 * channels)


def criss_cross(module, channels, height, width):
    n, narrow = height * width, module.key_channels
    layers, both = 2 * n * channels * (2 * narrow + channels), 2 * n * (height + width)
    times = module.recurrence  # weights are few, and kept
    return times * (layers + both * (narrow + channels)), 2 * times * (layers + both * (narrow + channels))


def polarized(module, channels, height, width):
    layers = 2 * height * width * channels * (1 + 3 * module.hidden_channels)
    return layers, 2 * layers


def channel(_, channels, height, width):
    product = 2 * channels**2 * height * width
    return product * 3 / 2, 3 * product  # the gradient of x xᵀ is one product, not two


def non_local(module, channels, height, width):
    n, narrow = height * width, module.hidden_channels
    keys = (height // 2) * (width // 2) if module.subsample else n
    layers, product = 8 * n * channels * narrow, 2 * n * keys * narrow
    if module.variant == "dot_product":
        forward = 2 * (n + keys) * narrow**2
        return layers + forward, 2 * layers + 2 * forward
    return layers + 2 * product, 2 * layers + 5 * product


def external(module, channels, height, width):
    n = height * width
    layers = 2 * n * channels * (2 * module.memory + (2 * channels if module.block else 0))
    return layers, 2 * layers


def distributing(module, channels, height, width):
    n = height * width
    shapes = module.parameter_shapes()
    layers = sum(2 * n * shape[0] * shape[1] for shape in shapes.values() if len(shape) == 4)
    names = ("keys", "values") if module.key == "linear" else ("convB", "convA")
    maps, features = (shapes[f"{name}.weight"][0] for name in names)
    products = 4 * n * maps * features // getattr(module, "heads", 1)
    return layers + products, 2 * (layers + products)


def multi_head(_, channels, height, width):
    n = height * width
    layers, product = 8 * n * channels**2, 2 * n * n * channels  # of all heads together
    return layers + 2 * product, 2 * layers + 5 * product


def window(module, channels, height, width):
    h, w = pair(module.window)
    n, inner = math.ceil(height / h) * h * math.ceil(width / w) * w, module.heads * module.query_channels
    layers, product = 8 * n * channels * inner, 2 * n * h * w * inner
    return layers + 2 * product, 2 * layers + 5 * product


def lambdas(module, channels, height, width):
    """Count the 1×1 convolution, the lambdas of content and of positions, with taps on the map, and their product."""
    n, keys, values, heads = height * width, module.query_channels, module.value_channels, module.heads
    layer, content = 2 * n * channels * (heads * keys + keys + values), 2 * n * keys * values
    position = 2 * keys * values * math.prod(taps_of_axis(length, module.kernel_size) for length in (height, width))
    forward = layer + content + position + 2 * n * heads * keys * values
    return forward, 2 * forward


def taps_of_axis(length, size):
    """Count the taps of a kernel that lie on an axis, over all its positions."""
    return sum(max(0, length - abs(way)) for way in range(-(size // 2), size // 2 + 1))


def bottleneck_attention(module, channels, height, width):
    n, (queries, _, values) = height * width, module.sizes
    layers, offsets = 2 * n * channels * sum(module.sizes), 2 * n * queries * (height + width)
    forward, backward = (2 * n * n * (times * queries + more * values) for times, more in ((1, 1), (3, 2)))
    return layers + offsets + forward, 2 * (layers + offsets) + backward


def halo_attention(module, channels, height, width):
    n, seen, queries = height * width, module.win_size**2, module.heads * module.head_channels
    asked = n // module.query_stride**2
    out = module.output_channels
    layers = 2 * channels * (asked * queries + n * (queries + out))
    offsets = 4 * asked * queries * module.win_size
    forward, backward = (2 * asked * seen * (times * queries + more * out) for times, more in ((1, 1), (3, 2)))
    return layers + offsets + forward, 2 * (layers + offsets) + backward


def dual(module, channels, height, width):
    n, narrow = height * width, max(1, channels // 4)
    kernels = 2 * taps_inside((height, width), 1) * 2 * (channels * narrow + narrow**2)
    layers = kernels + 3 * 2 * n * narrow * module.classes
    parts = zip(position(None, narrow, height, width), channel(None, narrow, height, width), strict=True)
    return [factor * layers + sum(part) for factor, part in zip((1, 2), parts, strict=True)]


def multi_scale(module, channels, height, width):
    n, out = height * width, module.out_channels
    kernels = sum(taps_inside((height, width), rate) for rate in module.rates)
    forward = 2 * out * (channels * (n + kernels) + (len(module.rates) + 2) * n * out)
    return forward, 2 * forward


def selective_kernel(module, _, height, width):
    """Count the branches' convolutions, whose taps lie on the map, at stride 1."""
    read = module.read_channels // module.groups
    taps = [taps_inside((height, width), apart) if size == 3 else height * width for size, apart in module.kernels]
    forward = 2 * module.output_channels * read * sum(taps)
    return forward, 2 * forward


def split_attention(module, channels, height, width):
    """Count the grouped convolution, whose taps lie on the map, at stride 1."""
    read = channels // (module.groups * module.radix)
    forward = 2 * module.radix * module.output_channels * read * taps_inside((height, width), module.dilation)
    return forward, 2 * forward


def bottleneck(module, channels, height, width):
    hidden = module.hidden_channels
    forward = 2 * hidden * (channels * height * width + 2 * hidden * taps_inside((height, width), module.dilation))
    return forward, 2 * forward


def attention_gate(module, _, height, width):
    """Count the layers of both maps and of their sum, which have s × s times fewer positions."""
    kernels = sum(math.prod(shape) for shape in module.parameter_shapes().values() if len(shape) == 4)
    forward = 2 * kernels * (height // module.stride) * (width // module.stride)
    return forward, 2 * forward


def multi_scale_groups(module, channels, height, width):
    """Count the two convolutions of every group, and the products of weights and branches."""
    each, n = channels // module.groups, height * width
    averaged, whole = each * (height + width), each * taps_inside((height, width), 1)
    forward = 2 * channels * (averaged + whole + 2 * n)
    return forward, 2 * forward


def pixel_correlation(module, channels, height, width):
    n, embedding, values = height * width, module.embedding, 21
    layers, half = 2 * n * channels * embedding, n * n
    return layers + half * (embedding + 2 * values), 2 * layers + half * (3 * embedding + 4 * values)


def scaled_dot_product(module, _, queries, keys):
    """Count for all heads, without what a mask hides being left out."""
    pairs, d, e = 2 * module.heads * queries * keys, module.head_dim, module.value_channels
    return pairs * (d + e), pairs * (3 * d + 2 * e)


PRODUCTS = {
    "bam": bottleneck,
    "attention-gate": attention_gate,
    "polarized": polarized,
    "pam": position,
    "criss-cross": criss_cross,
    "cam": channel,
    "danet": dual,
    "ema": multi_scale_groups,
    "non-local": non_local,
    "external": external,
    "double": distributing,
    "linear": distributing,
    "mhsa": multi_head,
    "window": window,
    "lambda": lambdas,
    "sdpa": scaled_dot_product,
    "bottleneck": bottleneck_attention,
    "halo": halo_attention,
    "multi-scale": multi_scale,
    "sk": selective_kernel,
    "split": split_attention,
    "pcm": pixel_correlation,
}
"""Systems whose products decide: flops for one image, forward and backward."""


def taps_inside(size, rate):
    """Count the taps of 3×3 kernels at every position of a map that lie on the map."""
    return math.prod(n + 2 * max(0, n - rate) for n in size)
