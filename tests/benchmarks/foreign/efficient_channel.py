"""Efficient channel attention, and mistakes in it."""

from tests.benchmarks.foreign.pieces import F, average, constant, gate, largest, mistake, torch


def across(u, weight):
    return F.conv1d(u[:, None], weight, padding=weight.shape[-1] // 2)[:, 0]


def eca(p, x, *, pool=average, conv=across, squash=torch.sigmoid, scale=gate):
    return scale(x, squash(conv(pool(x), p["conv.weight"])))


@mistake("eca", "flip", "reversed", "true convolution")
def eca_kernel_flipped(p, x):
    """Convolution across channels: the kernel is reversed, as in signal processing."""
    return eca(p, x, conv=lambda u, w: across(u, w.flip(-1)))


@mistake("eca", "circular", "padding", "wrap")
def eca_circular_padding(p, x):
    """Convolution across channels: beyond the last channel it reads the first."""
    return eca(p, x, conv=lambda u, w: F.conv1d(F.pad(u[:, None], (1, 1), "circular"), w)[:, 0])


@mistake("eca", "replicate", "edge", "padding")
def eca_replicate_padding(p, x):
    """Convolution across channels: beyond the ends it repeats the end channels."""
    return eca(p, x, conv=lambda u, w: F.conv1d(F.pad(u[:, None], (1, 1), "replicate"), w)[:, 0])


@mistake("eca", "shift", "off by one", "causal", "one channel further back")
def eca_shifted_by_one(p, x):
    """Convolution across channels: all padding stands in front, so that every window ends at its channel."""
    return eca(p, x, conv=lambda u, w: F.conv1d(F.pad(u[:, None], (2, 0)), w)[:, 0])


@mistake("eca", "flip", "reversed", "backward")
def eca_input_gradient_by_the_unflipped_kernel(p, x):
    """Convolution's backward: dp is made with the kernel as in forward, not reversed."""

    def conv(u, w):
        along_weight = across(constant(u), w)
        return along_weight + across(u, constant(w).flip(-1)) - constant(across(u, w.flip(-1)))

    return eca(p, x, conv=conv)


@mistake("eca", "first image", "batch", "only image 0")
def eca_weight_gradient_of_the_first_image(p, x):
    """Convolution's backward: the weight's gradient is that of the first image alone."""

    def conv(u, w):
        return torch.cat([across(u[:1], w), across(u[1:], constant(w))])

    return eca(p, x, conv=conv)


@mistake("eca", "axis", "positions", "channels")
def eca_kernel_along_the_batch(p, x):
    """Convolution across channels: the kernel slides along the images instead."""
    return eca(p, x, conv=lambda u, w: across(u.T, w).T)


@mistake("eca", "max", "pool")
def eca_pools_by_max(p, x):
    """Average pool: the maximum is taken instead."""
    return eca(p, x, pool=largest)


@mistake("eca", "softmax", "normalised kernel")
def eca_kernel_normalised(p, x):
    """Convolution across channels: the kernel is first made to add up to 1 by a softmax."""
    return eca(p, x, conv=lambda u, w: across(u, torch.softmax(w, -1)))


@mistake("eca", "row", "column", "pool", "number of positions")
def eca_pools_the_last_row_twice(p, x):
    """Average pool: a thread block reads the last row of the map twice."""
    return eca(p, x, pool=lambda x: average(x) + x[:, :, -1].mean(2) / x.shape[2])
