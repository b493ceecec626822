"""Sliding-window segmentation and flexible segmentation, and mistakes in them."""

from functools import partial

from tests.benchmarks.foreign.pieces import by_hand, constant, gate, mistake, torch, under
from tests.benchmarks.foreign.several_pools import flexible


def starts(length, window, stride):
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def mean(u):
    return u.mean((2, 3))


def classify(u, p):
    return torch.nn.functional.linear(u, p["classifier.weight"], p["classifier.bias"])


def averaged(total, count):
    return total / count


def sliding_window(
    p,
    x,
    window=3,
    stride=2,
    *,
    begin=starts,
    pool=mean,
    score=classify,
    join=averaged,
    weight=torch.ones,
):
    height, width = x.shape[2:]
    h, w = min(window, height), min(window, width)
    total = x.new_zeros(len(x), p["classifier.weight"].shape[0], height, width)
    count = x.new_zeros(height, width)
    for i in begin(height, window, stride):
        for j in begin(width, window, stride):
            share = torch.zeros_like(count)
            share[i : i + h, j : j + w] = weight(*share[i : i + h, j : j + w].shape)
            total = total + score(pool(x[:, :, i : i + h, j : j + w]), p)[:, :, None, None] * share
            count = count + share
    return join(total, count)


def flexible_segmentation(p, x, window=3, stride=2, *, first=flexible, second=sliding_window):
    return second(under(p, "segmentation."), first(under(p, "attention."), x), window, stride)


@mistake("sliding-window", "sum", "count", "not divided", "overlap", "number of windows")
def windows_added(p, x):
    """Overlap: logits are added up, and not divided by the number of windows at a position."""
    return sliding_window(p, x, join=lambda total, count: total)


@mistake("sliding-window", "count", "most", "number of windows", "overlap")
def windows_divided_by_the_largest_count(p, x):
    """Overlap: divided by the largest number of windows anywhere, also where fewer lie."""
    return sliding_window(p, x, join=lambda total, count: total / count.max())


@mistake("sliding-window", "count", "all windows", "number of windows", "overlap")
def windows_divided_by_their_number(p, x):
    """Overlap: divided by the number of all windows of the map."""
    many = len(starts(x.shape[2], 3, 2)) * len(starts(x.shape[3], 3, 2))
    return sliding_window(p, x, join=lambda total, count: total / many)


@mistake("sliding-window", "last window", "edge", "dropped", "left out", "inward")
def windows_at_the_far_edge_left_out(p, x):
    """Windows: the last, which does not lie on the stride's grid, is left out; what no window covers is 0."""

    def begin(length, window, stride):
        return range(0, length - window + 1, stride)

    return sliding_window(p, x, begin=begin, join=lambda total, count: total / count.clamp(min=1))


@mistake("sliding-window", "last window", "edge", "inward", "cut", "clipped")
def windows_at_the_far_edge_cut(p, x):
    """Windows: the last stays on the stride's grid and is cut by the edge, not moved inward."""

    def begin(length, window, stride):
        return range(0, length - window + stride, stride)

    return sliding_window(p, x, begin=begin)


@mistake("sliding-window", "padd", "area", "zeros", "edge", "last window")
def windows_at_the_far_edge_padded(p, x):
    """Windows: the last reaches beyond the edge, over zeros, and is divided by its whole area."""

    def begin(length, window, stride):
        return range(0, length - window + stride, stride)

    return sliding_window(p, x, begin=begin, pool=lambda u: u.sum((2, 3)) / 9)


@mistake("sliding-window", "sum", "area", "not divided", "window")
def windows_pooled_by_sum(p, x):
    """Window's mean: a sum."""
    return sliding_window(p, x, pool=lambda u: u.sum((2, 3)))


@mistake("sliding-window", "max", "pool")
def windows_pooled_by_max(p, x):
    """Window's mean: the maximum is taken instead."""
    return sliding_window(p, x, pool=lambda u: u.amax((2, 3)))


@mistake("sliding-window", "stride", "step")
def windows_with_stride_one(p, x):
    """Windows: stride 1, whatever is given."""
    return sliding_window(p, x, stride=1)


@mistake("sliding-window", "overwritten", "last window")
def windows_overwrite_each_other(p, x):
    """Overlap: later windows overwrite earlier ones, as an assignment to a slice does."""
    y, (height, width) = 0, x.shape[2:]
    for i in starts(height, 3, 2):
        for j in starts(width, 3, 2):
            share = torch.zeros(height, width, dtype=torch.bool)
            share[i : i + 3, j : j + 3] = True
            y = torch.where(share, classify(mean(x[:, :, i : i + 3, j : j + 3]), p)[:, :, None, None], y)
    return y


@mistake("sliding-window", "softmax", "probabilit")
def windows_vote_by_probabilities(p, x):
    """Classifier: a softmax over the classes stands behind it, so that probabilities are averaged."""
    return sliding_window(p, x, score=lambda u, p: torch.softmax(classify(u, p), 1))


@mistake("sliding-window", "bias", "classifier.bias")
def windows_without_bias(p, x):
    """Classifier: no bias."""
    return sliding_window({**p, "classifier.bias": 0 * p["classifier.bias"]}, x)


@mistake("sliding-window", "centre", "weight", "distance")
def windows_weighed_by_distance(p, x):
    """Overlap: the centre of a window counts twice as much as its rim."""

    def weight(h, w):
        share = torch.ones(h, w)
        share[h // 2, w // 2] = 2
        return share

    return sliding_window(p, x, weight=weight)


@mistake("sliding-window", "centre", "pool", "one position")
def windows_read_at_their_centre(p, x):
    """Window's mean: the feature at the centre alone."""
    return sliding_window(p, x, pool=lambda u: u[:, :, 1, 1])


@mistake("sliding-window", "area", "divided", "backward", "mean")
def windows_mean_backward_not_divided(p, x):
    """Window's mean, backward: 1/area is left out."""

    def gradient(dy, u, y):
        return dy[:, :, None, None].expand(u.shape)

    return sliding_window(p, x, pool=lambda u: by_hand(u, mean, gradient))


@mistake("sliding-window", "overlap", "count", "backward", "divided")
def windows_overlap_backward_not_divided(p, x):
    """Overlap's backward: gradients are gathered from a window's positions without dividing by the count there."""
    undivided = sliding_window(p, x, join=lambda total, count: total)
    return undivided + constant(sliding_window(p, x) - undivided)


@mistake("sliding-window", "transpose", "height and width", "H and W", "order")
def windows_counted_by_columns(p, x):
    """Layout: the logits are laid out by columns and read by rows."""
    return sliding_window(p, x).transpose(2, 3).reshape(len(x), -1, *x.shape[2:])


@mistake("flexible-segmentation", "ungated", "input", "left out", "attention")
def flexible_segmentation_of_the_input(p, x):
    """Second half: the windows read the input, not the map that has been weighed."""
    return flexible_segmentation(p, x, first=lambda p, x: x + 0 * flexible(p, x))


@mistake("flexible-segmentation", "residual", "input added", "skip", "gate: one added")
def flexible_segmentation_of_the_sum(p, x):
    """First half: the input is added to the weighed map."""
    return flexible_segmentation(p, x, first=lambda p, x: x + flexible(p, x))


@mistake("flexible-segmentation", "sigmoid before", "sum of sigmoids", "before the sum")
def flexible_segmentation_sigmoid_before_the_sum(p, x):
    """First half: each pool's logits pass the sigmoid, and the gates are added."""

    def join(logits):
        return sum(map(torch.sigmoid, logits))

    return flexible_segmentation(p, x, first=partial(flexible, join=join))


@mistake("flexible-segmentation", "detach", "constant", "cut")
def flexible_segmentation_gates_detached(p, x):
    """First half's backward: the gates are constants; the attention's parameters get no gradient."""
    first = partial(flexible, scale=lambda x, a: gate(x, constant(a)))
    return flexible_segmentation(p, x, first=first)


@mistake("flexible-segmentation", "relu", "activation")
def flexible_segmentation_without_relu(p, x):
    """First half: no ReLU in the hidden layer."""
    return flexible_segmentation(p, x, first=partial(flexible, act=lambda h: h))


@mistake("flexible-segmentation", "sum", "count", "not divided", "overlap", "number of windows")
def flexible_segmentation_windows_added(p, x):
    """Second half: logits are added up and not divided by the number of windows."""
    return flexible_segmentation(p, x, second=partial(sliding_window, join=lambda total, count: total))


@mistake("flexible-segmentation", "max", "pool", "average")
def flexible_segmentation_without_the_maximum(p, x):
    """First half: the branch of the maximum is left out."""
    return flexible_segmentation(p, x, first=partial(flexible, pools=("avg",)))
