"""Gates by neighbourhoods as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, gate, sigmoid
from tests.benchmarks.foreign.latest_pieces import backward_alone, by_running, narrowed
from tests.benchmarks.foreign.pieces import F, constant, mistake, norm, pointwise, torch

EXTENT_2 = {"channels": 16, "extent": 2, "extra_params": False, "reduction": 4}


def depthwise(x, w):
    return F.conv2d(x, w, stride=2, padding=1, groups=x.shape[1])


def gather(p, x, *, training=False, slide=depthwise, normalise=norm, last=lambda q: q):
    for i in (1, 2):
        x = normalise(slide(x, p[f"gather.conv{i}.weight"]), p, f"gather.norm{i}", training)
        x = F.relu(x) if i == 1 else last(x)
    return x


def averages(p, x, *, training=False, whole=False):
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=whole)


def places(n, size):
    return torch.arange(size) * n // size


def nearest(a, size):
    rows, columns = (places(n, m) for n, m in zip(a.shape[2:], size, strict=True))
    return a[:, :, rows][..., columns]


def excite(p, q):
    return pointwise(F.relu(pointwise(q, p, "mlp.fc1")), p, "mlp.fc2")


def ge(p, x, *, training=False, extra_params=True, read=None, excite=excite, grow=nearest):
    read = read or (gather if extra_params else averages)
    return gate(x, grow(sigmoid(excite(p, read(p, x, training=training))), x.shape[2:]))


def gathered(**changes):
    return lambda p, x, **options: gather(p, x, **options, **changes)


@mistake(
    "ge",
    *("bilinear", "linear interpolation", "linearly", "interpolated"),
)
def ge_grows_bilinearly(p, x):
    """Forward: gates grow to the map's size by bilinear interpolation."""
    return ge(p, x, grow=lambda a, size: F.interpolate(a, size, mode="bilinear"))


@mistake(
    "ge",
    *("relu behind", "activation behind", "relu after", "one relu too many", "extra relu", "relu too many"),
    *("last convolution", "last layer", "relu: added", "activated"),
)
def ge_relu_behind_the_last_convolution(p, x):
    """Forward: what is gathered goes through a relu as it does between the convolutions."""
    return ge(p, x, read=gathered(last=F.relu))


@mistake(
    "ge",
    *("padding counted", "count_include_pad", "include_pad", "full window", "counts the padding"),
    *("zeros counted", "divisor", "always by"),
    **EXTENT_2,
)
def ge_average_counts_the_padding(p, x):
    """Forward: averages at the edges are divided by a whole window's positions."""
    return ge(p, x, read=lambda p, x, training: averages(p, x, whole=True))


def leaders(a, size):
    rows, columns = (places(n, m) for n, m in zip(a.shape[2:], size, strict=True))
    first = [torch.cat((k.new_ones(1, dtype=torch.bool), k.diff() > 0)) for k in (rows, columns)]
    kept = (first[0][:, None] & first[1]).to(a.dtype)
    y = nearest(a, size)
    return backward_alone(y, y * kept)


@mistake(
    "ge",
    *("first position", "not summed", "one position", "top left", "first of each", "strided", "not added up"),
    *("sum over the block", "one of each", "read from one"),
)
def ge_grown_gradient_is_read_once(p, x):
    """Backward: a gate's gradient is that of the first of the positions it was copied to."""
    return ge(p, x, grow=leaders)


def last_image(x, w):
    return backward_alone(depthwise(x, w), depthwise(x, constant(w)) + depthwise(constant(x), w) * one_image(x))


def one_image(x):
    return (torch.arange(len(x)) == len(x) - 1).to(x.dtype)[:, None, None, None]


@mistake(
    "ge",
    *("last image", "one image", "overwritten", "not accumulated", "first image", "not summed"),
    *("one example", "last example"),
)
def ge_kernel_gradient_of_the_last_image(p, x):
    """Backward: images overwrite each other's gradients of the kernels; the last one's stays."""
    return ge(p, x, read=gathered(slide=last_image))


def without_weight(q, p, name, training):
    weight = p[f"{name}.weight"][:, None, None].detach()
    y = by_running(q, p, name)
    return y + (1 / weight - 1) * (
        weight * (q - constant(q)) / torch.sqrt(p[f"{name}.running_var"] + 1e-5)[:, None, None]
    )


@mistake(
    "ge",
    *("without the weight", "weight left out", "not scaled", "without its weight", "affine", "norm's weight"),
    *("without γ", "without gamma", "γ left out"),
)
def ge_norm_backward_without_its_weight(p, x):
    """Backward: through the norms, at inference, the gradient is multiplied by 1/σ, not by the weight."""
    return ge(p, x, read=gathered(normalise=without_weight))


def right_padded(x, w):
    return forward_alone(depthwise(x, w), F.conv2d(F.pad(x, (0, 2, 0, 2)), w, stride=2, groups=x.shape[1]))


@mistake(
    "ge",
    *("asymmetric", "one position", "off by one", "one side", "bottom and right", "below and to the right"),
    *("starts at", "padded on one side", "shifted by one", "one row and column"),
)
def ge_pads_below_and_to_the_right(p, x):
    """Forward alone: both rows and columns of padding lie below and to the right of the map."""
    return ge(p, x, read=gathered(slide=right_padded))


def rounded(a, size):
    rows, columns = (
        ((2 * torch.arange(m) * n + m) // (2 * m)).clamp(max=n - 1) for n, m in zip(a.shape[2:], size, strict=True)
    )
    return a[:, :, rows][..., columns]


@mistake(
    "ge",
    *("rounded", "rounding", "rounds", "ceil", "half pixel", "upwards"),
)
def ge_position_is_rounded(p, x):
    """Forward: the position that is read when gates grow is rounded to the nearest, not down."""
    return ge(p, x, grow=rounded)


def narrow_layers(p, q):
    h = F.relu(pointwise(q, p, "mlp.fc1"))
    return pointwise(forward_alone(h, narrowed(h)), p, "mlp.fc2")


@mistake(
    "ge",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def ge_hidden_kept_in_bfloat16(p, x):
    """Precision: the hidden layer is kept in bfloat16."""
    return ge(p, x, excite=narrow_layers)
