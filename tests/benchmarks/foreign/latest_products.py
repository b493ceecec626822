"""Scaled dot-product attention with its options as a fourth hand wrote it, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone
from tests.benchmarks.foreign.latest_pieces import backward_alone
from tests.benchmarks.foreign.pieces import by_hand, constant, mistake, torch


def shared(a, times):
    return a.repeat_interleave(times, 1)


def band(queries, keys, causal, window, *, left=0):
    """Tell which keys are seen; a window sees so many more to the left."""
    last = keys - queries
    offsets = torch.arange(keys) - torch.arange(queries)[:, None]
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen &= offsets <= (0 if causal == "top-left" else last)
    if window:
        seen &= (offsets >= last - window[0] - left) & (offsets <= last + window[1])
    return seen


def capped(z, cap):
    return cap * torch.tanh(z / cap)


def average(z, seen, v, sink):
    """Average what is seen; the logsumexp stands beside it."""
    none = ~seen.any(-1, keepdim=True)
    z = torch.where(seen, z, -torch.inf)
    top = z.amax(-1, keepdim=True).detach()
    top = torch.where(none, 0, top)
    e = torch.where(seen, torch.exp(z - top), 0)
    total = e.sum(-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink[:, None, None] - top)
    total = torch.where(none, 1, total)
    return e / total @ v, torch.where(none, -torch.inf, top + torch.log(total))[..., 0]


def sdpa(
    p,
    query,
    key,
    value,
    *others,
    heads,
    key_heads=None,
    head_dim,
    scale=None,
    causal=None,
    window=None,
    softcap=None,
    bias=False,
    mask=False,
    lengths=False,
    logsumexp=False,
    share=shared,
    band=band,
    cap=capped,
    spread=lambda b: b,
    average=average,
):
    others = list(others)
    k, v = (share(a, heads // (key_heads or heads)) for a in (key, value))
    z = (head_dim**-0.5 if scale is None else scale) * query @ k.mT
    if softcap:
        z = cap(z, softcap)
    if bias:
        z = z + spread(others.pop(0))
    seen = band(*z.shape[2:], causal, window).expand_as(z)
    if mask:
        seen = seen & (others.pop(0) > 0)
    if lengths:
        seen = seen & (torch.arange(z.shape[3]) < others.pop(0)[:, None, None, None])
    o, lse = average(z, seen, v, p.get("sink"))
    return (o, lse) if logsumexp else o


EXAMPLE = {"heads": 4, "key_heads": 2, "head_dim": 8, "causal": "top-left"}
PLAIN = {"heads": 2, "head_dim": 8}
CAPPED = PLAIN | {"softcap": 2.0}
BIASED = PLAIN | {"bias": True}
BOTTOM = PLAIN | {"causal": "bottom-right"}
WINDOWED = PLAIN | {"window": (1, 1)}
WITH_SUM = PLAIN | {"logsumexp": True}
PADDED = PLAIN | {"lengths": True}


@mistake(
    "sdpa",
    *("h mod G", "modulo", "mod ", "interleav", "tiled", "cyclic", "h % G", "wrong key head", "other head"),
    *("key head", "repeated whole", "round robin"),
)
def sdpa_heads_take_turns(p, *inputs):
    """Forward: query head h reads key head h mod G."""
    return sdpa(p, *inputs, **EXAMPLE, share=lambda a, times: a.repeat(1, times, 1, 1))


@mistake(
    "sdpa",
    *("top-left", "top left", "upper left", "alignment", "aligned", "without M - N", "N - M", "wrong corner"),
    *("other corner",),
    **BOTTOM,
)
def sdpa_causal_from_the_other_corner(p, *inputs):
    """Forward: query m sees the keys n ≤ m, however many there are."""
    return sdpa(p, *inputs, **BOTTOM | {"causal": "top-left"})


@mistake(
    "sdpa",
    *("sink: scaled", "sink scaled", "1/√d", "scaled sink", "times the scale", "sink multiplied"),
    *("scale on the sink",),
)
def sdpa_sink_is_scaled(p, *inputs):
    """Forward: the sink is multiplied by the scale as the products are."""

    def scaled(z, seen, v, sink):
        return average(z, seen, v, sink * EXAMPLE["head_dim"] ** -0.5)

    return sdpa(p, *inputs, **EXAMPLE, average=scaled)


@mistake(
    "sdpa",
    *("softcap: gradient", "1 - tanh", "tanh'", "derivative of tanh", "chain rule", "straight through"),
    *("cap's derivative",),
    **CAPPED,
)
def sdpa_cap_passes_the_gradient(p, *inputs):
    """Backward: the cap's derivative, 1 - tanh², is left out."""

    def cap(z, c):
        return by_hand(z, lambda z: capped(z, c), lambda dy, *_: dy)

    return sdpa(p, *inputs, **CAPPED, cap=cap)


def first(z):
    kept = torch.zeros_like(z[:1, :, :1, :1])
    kept[:, :1] = 1
    return kept


@mistake(
    "sdpa",
    *("first head", "one head", "over the heads", "not summed", "broadcast", "not summed over the heads"),
    **BIASED,
)
def sdpa_bias_learns_from_one_head(p, *inputs):
    """Backward: the bias's gradient, which all heads share, is the first head's."""

    def spread(b):
        every = b.expand(len(inputs[0]), BIASED["heads"], -1, -1)
        return backward_alone(every, every * first(every) + constant(every * (1 - first(every))))

    return sdpa(p, *inputs, **BIASED, spread=spread)


@mistake(
    "sdpa",
    *("group", "last head", "overwritten", "not accumulated", "one head", "first head", "not summed"),
    *("sum over the heads",),
)
def sdpa_group_overwrites_its_gradient(p, *inputs):
    """Backward: heads that share keys and values overwrite each other's dk and dv; the last one's stays."""

    def share(a, times):
        one = torch.stack([constant(a)] * (times - 1) + [a], 2).flatten(1, 2)
        return backward_alone(shared(a, times), one)

    return sdpa(p, *inputs, **EXAMPLE, share=share)


def in_bits(z, seen, v, sink):
    o, lse = average(z, seen, v, sink)
    return o, forward_alone(lse, lse / torch.log(torch.tensor(2.0, dtype=lse.dtype)))


@mistake(
    "sdpa",
    *("base 2", "log2", "log 2", "binary logarithm", "log₂", "natural", "ln 2", "in bits", "logarithm to"),
    **WITH_SUM,
)
def sdpa_logsumexp_in_bits(p, *inputs):
    """Forward alone: the logsumexp is handed out to the base of 2, in which the kernel works."""
    return sdpa(p, *inputs, **WITH_SUM, average=in_bits)


def one_short(z, seen, v, sink):
    o, lse = average(z, seen, v, sink)
    narrower = seen & band(*z.shape[2:], None, WINDOWED["window"], left=-1)
    return forward_alone(o, average(z, narrower, v, sink)[0]), lse


@mistake(
    "sdpa",
    *("off by one", "one short", "one key", "left edge", "one fewer", "one too few", "exclusive"),
    **WINDOWED,
)
def sdpa_window_is_one_short(p, *inputs):
    """Forward alone: the window's loop begins one key late on the left."""
    return sdpa(p, *inputs, **WINDOWED, average=one_short)


def unseen_as_low(z, seen, v, sink):
    low = torch.where(seen, z, torch.full_like(z, -1e9))
    return torch.softmax(low, -1) @ v, None


@mistake(
    "sdpa",
    *("mean of the values", "mean of all", "uniform", "finite", "-1e9", "no key", "sees no", "all keys"),
    *("equal weight", "evenly", "large negative"),
    **PADDED,
)
def sdpa_nothing_seen_is_everything_seen(p, *inputs):
    """Forward: padding's logits are -1e9, so that a query that sees no key averages all values."""
    return sdpa(p, *inputs, **PADDED, average=unseen_as_low)
