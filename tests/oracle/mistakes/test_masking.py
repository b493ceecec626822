"""Mistakes of attention's tiles are those of a kernel that goes query by query and tile by tile."""

import numpy as np
import pytest

from npattn import ops
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.planting import completed
from tests.oracle.mistakes.plain import draw

SCALE, STEP = 0.6, 1e-6
M, N = np.arange(23)[:, None], np.arange(19)
MASKS = {
    "none": (23, {}),
    "top-left": (40, {"band": (None, 0)}),
    "causal, keys ahead": (17, {"band": (None, 4)}),
    "window": (23, {"band": (-3, 6)}),
    "mask, bias, softcap and sink": (
        23,
        {
            "mask": (draw(2, 1, 23, 19) > -0.5) * 1.0,
            "bias": draw(1, 2, 23, 19),
            "softcap": 2.0,
            "sink": draw(2),
            "band": (None, 5),
        },
    ),
}
"""Queries, and options of attention to 19 keys."""


def drawn(queries, keys=19):
    return [np.random.RandomState(i).standard_normal((2, 2, 3, n)) for i, n in enumerate((queries, keys, keys))]


def sees(m, n, options, at):
    least, most = options.get("band", (None, None))
    mask = options.get("mask")
    hidden = mask is not None and n < mask.shape[-1] and mask[at[0], 0, m, n] == 0
    return (least is None or n - m >= least) and (most is None or n - m <= most) and not hidden


def logit(q, k, pair, options, at):
    """Logit of a key, or of what stands behind the last: 0, in the bias too."""
    m, n = pair
    there = n < k.shape[-1]
    z = SCALE * q[at][:, m] @ k[at][:, n] if there else 0.0
    if options.get("softcap"):
        z = options["softcap"] * np.tanh(z / options["softcap"])
    return z + (options["bias"][0, at[1], m, n] if there and "bias" in options else 0)


def kernel(q, k, v, options, *, tile=8, keys_end=True, rescale=("accumulator", "sum")):
    """Attend tile by tile, as far as the last tile is long if nothing says where keys end: output and logsumexp."""
    o, log_sum = np.zeros((*q.shape[:2], v.shape[2], q.shape[3])), np.full(q.shape[:2] + q.shape[3:], -np.inf)
    n_keys = k.shape[-1]
    for at in np.ndindex(q.shape[:2]):
        for m in range(q.shape[-1]):
            highest, total, accumulated = -np.inf, 0.0, np.zeros(v.shape[2])
            for start in range(0, n_keys, tile):
                some = range(start, min(start + tile, n_keys) if keys_end else start + tile)
                logits = {n: logit(q, k, (m, n), options, at) for n in some if sees(m, n, options, at)}
                if not logits:
                    continue
                before, highest = highest, max(highest, *logits.values())
                down = np.exp(before - highest)
                total *= down if "sum" in rescale else 1
                accumulated *= down if "accumulator" in rescale else 1
                for n, z in logits.items():
                    total += np.exp(z - highest)
                    accumulated += np.exp(z - highest) * (v[at][:, n] if n < n_keys else 0)
            if total:
                total += np.exp(options["sink"][at[1]] - highest) if "sink" in options else 0
                o[at][:, m], log_sum[at][m] = accumulated / total, highest + np.log(total)
    return o, log_sum


def made(primitive, name, way):
    (found,) = (one for one in MISTAKES if (one.primitive, one.name, one.way) == (primitive.__name__, name, way))
    return found


def called(mistake, primitive, qkv, options=None):
    """Whether there is anything to get wrong, and what is made."""
    given, others = completed(primitive, (*qkv, SCALE), options or {})
    applies = mistake.when(*given, **others)
    return applies, mistake.apply(primitive, *given, **others)


def slope(formula, arrays, dy, directions):
    """How a formula of arrays changes, weighed, along a direction."""
    ahead, behind = (
        formula(*(a + step * d for a, d in zip(arrays, directions, strict=True))) for step in (STEP, -STEP)
    )
    return sum(np.vdot(g, a - b) for g, a, b in zip(dy, ahead, behind, strict=True)) / (2 * STEP)


def assert_is_derivative(gradients, formula, qkv, dy):
    directions = [np.random.RandomState(i + 9).standard_normal(a.shape) for i, a in enumerate(qkv)]
    along = sum(np.vdot(g, d) for g, d in zip(gradients[:3], directions, strict=True))
    assert np.isclose(along, slope(formula, qkv, dy, directions), rtol=1e-5)


@pytest.mark.parametrize(("tile", "words"), [(16, ""), (8, ", tiles of 8"), (4, ", tiles of 4")])
@pytest.mark.parametrize("masks", MASKS)
def test_keys_behind_the_last_are_seen_by_those_queries_that_other_rules_let_see_so_far(masks, tile, words):
    queries, options = MASKS[masks]
    qkv = drawn(queries)
    name = f"last block of keys unmasked{words}"
    right, back_right = ops.masked_attention(*qkv, SCALE, **options)
    dy = draw(*right[0].shape), draw(*right[1].shape)

    def formula(*qkv):
        return kernel(*qkv, options, tile=tile, keys_end=False)

    expected = formula(*qkv)
    for way in ("forward", "carried"):
        applies, (values, backward) = called(made(ops.masked_attention, name, way), ops.masked_attention, qkv, options)
        assert applies
        assert all(np.allclose(a, b) for a, b in zip(values, expected, strict=True))
        assert not np.allclose(values[0], right[0])
        if way == "carried":
            assert_is_derivative(backward(*dy), formula, qkv, dy)
        else:
            assert all(np.allclose(a, b) for a, b in zip(backward(*dy)[:3], back_right(*dy)[:3], strict=True))


@pytest.mark.parametrize(
    ("queries", "options"),
    [
        (19, {"band": (None, 0)}),
        (12, {"band": (None, 7)}),
        (23, {"lengths": np.array([[19], [15]])}),
        (50, {"band": (0, 0), "lengths": np.array([[19], [15]])}),
    ],
    ids=["top-left", "bottom-right", "lengths", "lengths and window"],
)
def test_nothing_is_wrong_where_another_rule_hides_what_stands_behind_the_last_key(queries, options):
    qkv = drawn(queries)
    for tile in ("", ", tiles of 4", ", tiles of 64"):
        mistake = made(ops.masked_attention, f"last block of keys unmasked{tile}", "forward")
        applies, (values, _) = called(mistake, ops.masked_attention, qkv, options)
        assert not applies
        right, _ = ops.masked_attention(*qkv, SCALE, **options)
        assert all(np.allclose(a, b) for a, b in zip(values, right, strict=True))


@pytest.mark.parametrize("masks", ["none", "top-left", "window"])
def test_zeros_counted_in_weights_are_those_that_a_query_sees(masks):
    """The output is that of a sum with zeros; the logsumexp, which backward reads, has none."""
    queries, options = MASKS[masks]
    qkv = drawn(queries)
    mistake = made(ops.masked_attention, "zeros that fill up to a multiple of 8 counted in the weights", "forward")
    applies, (values, _) = called(mistake, ops.masked_attention, qkv, options)
    assert applies
    assert np.allclose(values[0], kernel(*qkv, options, keys_end=False)[0])
    assert np.allclose(values[1], kernel(*qkv, options)[1])


def by_logsumexp(qkv, o, log_sum, do, options, *, base=np.e):
    """Gradients by weights that are made again from a logsumexp, and δ of an output, in plain NumPy."""
    q, k, v = qkv
    seen = np.array(
        [[[[sees(m, n, options, (b, 0)) for n in range(k.shape[-1])] for m in range(q.shape[-1])]] for b in (0, 1)]
    )
    z = SCALE * np.einsum("bhcm,bhcn->bhmn", q, k)
    s = np.where(seen, base ** (z - log_sum[..., None]), 0)
    dz = SCALE * s * (np.einsum("bhcm,bhcn->bhmn", do, v) - np.einsum("bhcm,bhcm->bhm", do, o)[..., None])
    return (
        np.einsum("bhmn,bhcn->bhcm", dz, k),
        np.einsum("bhmn,bhcm->bhcn", dz, q),
        np.einsum("bhmn,bhcm->bhcn", s, do),
    )


@pytest.mark.parametrize(("tile", "words"), [(16, ""), (8, ", tiles of 8"), (4, ", tiles of 4")])
@pytest.mark.parametrize(
    ("primitive", "masks"),
    [(ops.dot_product_attention, "none"), (ops.masked_attention, "none"), (ops.masked_attention, "top-left")],
    ids=["dot product", "no mask", "top-left"],
)
def test_what_is_not_rescaled_is_accumulator_and_sum(primitive, masks, tile, words):
    queries, options = MASKS[masks]
    qkv = [a * np.array([1.0, 2.0, 3.0])[:, None] for a in drawn(queries)]
    name = f"neither accumulator nor sum rescaled{words}"
    separate = primitive is ops.masked_attention
    right, back_right = primitive(*qkv, SCALE, **options)

    def formula(*qkv):
        return kernel(*qkv, options, tile=tile, rescale=())

    o, log_sum = formula(*qkv)
    do = draw(*o.shape)
    for way in ("forward", "both", "carried"):
        applies, (value, backward) = called(made(primitive, name, way), primitive, qkv, options)
        gradients = backward(do)[:3]
        assert applies
        assert np.allclose(value[0] if separate else value, o)
        assert not np.allclose(value[0] if separate else value, right[0] if separate else right)
        if separate:
            assert np.allclose(value[1], log_sum)
        if way == "carried":
            assert_is_derivative(gradients, lambda *qkv: formula(*qkv)[:1], qkv, (do,))
        else:
            expected = back_right(do)[:3] if way == "forward" else by_logsumexp(qkv, o, log_sum, do, options)
            assert all(np.allclose(a, b) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize(("tile", "words"), [(16, ""), (8, ", tiles of 8"), (4, ", tiles of 4")])
@pytest.mark.parametrize("left_in", ["dq and dk", "backward"])
@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
def test_the_last_tile_of_queries_is_left_out(primitive, left_in, tile, words):
    """With 29 queries it begins at 16, 24 or 28: dq is 0 there, dk is of the others, and so is dv, or it is right."""
    options = {"band": (None, 0)} if primitive is ops.masked_attention else {}
    qkv = drawn(29, 31)
    start = 28 // tile * tile
    value, back_right = primitive(*qkv, SCALE, **options)
    o, log_sum = kernel(*qkv, options)
    mistake = made(primitive, f"gradient: last tile of queries left out in {left_in}{words}", "backward")
    applies, (same, backward) = called(mistake, primitive, qkv, options)
    do = draw(*o.shape)
    dq, dk, dv = backward(do)[:3]
    q, k, v = qkv
    visited = by_logsumexp((q[..., :start], k, v), o[..., :start], log_sum[..., :start], do[..., :start], options)
    right = back_right(do)
    assert applies
    assert np.array_equal(np.concatenate(same, axis=None), np.concatenate(value, axis=None))
    assert np.allclose(dq[..., :start], visited[0])
    assert not dq[..., start:].any()
    assert np.allclose(dk, visited[1])
    assert np.allclose(dv, visited[2] if left_in == "backward" else right[2])
    assert not np.allclose(visited[1], right[1])
    assert not np.allclose(visited[2], right[2])


def test_the_last_tile_of_queries_is_left_out_of_the_gradients_of_logsumexp_bias_and_sink():
    queries, options = MASKS["mask, bias, softcap and sink"]
    qkv = drawn(queries)
    value, back_right = ops.masked_attention(*qkv, SCALE, **options)
    mistake = made(ops.masked_attention, "gradient: last tile of queries left out in backward", "backward")
    _, (_, backward) = called(mistake, ops.masked_attention, qkv, options)
    do, dl = draw(*value[0].shape), draw(*value[1].shape)
    (first, _), back_first = ops.masked_attention(
        qkv[0][..., :16], *qkv[1:], SCALE, **options | {name: options[name][..., :16, :] for name in ("mask", "bias")}
    )
    dq, dk, dv, dbias, dsink = backward(do, dl)
    expected = back_first(do[..., :16], dl[..., :16])
    assert first.shape[-1] == 16
    assert np.allclose(dq[..., :16], expected[0])
    assert np.allclose(dbias[..., :16, :], expected[3])
    assert not dq[..., 16:].any()
    assert not dbias[..., 16:, :].any()
    assert all(np.allclose(a, b) for a, b in zip((dk, dv, dsink), (*expected[1:3], expected[4]), strict=True))
    assert not np.allclose(dsink, back_right(do, dl)[4])


def test_gradients_of_queries_and_keys_are_exchanged_and_no_others():
    qkv = drawn(19)
    options = {"bias": draw(1, 2, 19, 19), "sink": draw(2), "band": (None, 0)}
    mistake = made(ops.masked_attention, "gradient: dq and dk swapped", "backward")
    applies, ((o, _), backward) = called(mistake, ops.masked_attention, qkv, options)
    _, back_right = ops.masked_attention(*qkv, SCALE, **options)
    do = draw(*o.shape)
    dq, dk, *others = back_right(do)
    assert applies
    assert all(np.array_equal(a, b) for a, b in zip(backward(do), (dk, dq, *others), strict=True))
    assert not called(mistake, ops.masked_attention, drawn(20))[0]


@pytest.mark.parametrize("name", ["logits in bfloat16", "products of queries and keys in bfloat16"])
@pytest.mark.parametrize("way", ["forward", "both"])
def test_logits_are_rounded_with_their_bias_and_products_without(name, way):
    def narrow(a):
        scale = 2.0 ** (7 - np.floor(np.log2(np.abs(a))))
        return np.round(a * scale) / scale

    (q, k, v), bias = drawn(23), draw(1, 2, 23, 19)
    options = {"bias": bias, "band": (None, 4)}
    _, ((o, _), _) = called(made(ops.masked_attention, name, way), ops.masked_attention, (q, k, v), options)
    products = np.einsum("bhcm,bhcn->bhmn", q, k)
    z = narrow(SCALE * products + bias) if name.startswith("logits") else SCALE * narrow(products) + bias
    e = np.where(np.arange(19) - np.arange(23)[:, None] <= 4, np.exp(z), 0)
    np.testing.assert_allclose(o, np.einsum("bhmn,bhcn->bhcm", e / e.sum(axis=-1, keepdims=True), v), rtol=1e-12)


def plain_weights(q, k, scale):
    e = np.exp(scale * np.einsum("bhcm,bhcn->bhmn", q, k))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("primitive", "masks"),
    [(ops.dot_product_attention, "none"), (ops.masked_attention, "none"), (ops.masked_attention, "top-left")],
    ids=["dot product", "no mask", "top-left"],
)
@pytest.mark.parametrize(
    ("name", "scale"), [("missing scale", 1.0), ("scale twice", SCALE**2), ("base 2", SCALE * np.log(2))]
)
def test_backward_makes_weights_of_the_logsumexp_and_the_output_that_a_wrong_forward_has_saved(
    primitive, masks, name, scale
):
    queries, options = MASKS[masks]
    qkv = drawn(queries)
    (o, log_sum), _ = ops.masked_attention(*qkv, scale, **options)
    do = draw(*o.shape)
    applies, (value, backward) = called(made(primitive, name, "logsumexp"), primitive, qkv, options)
    assert applies
    assert np.allclose(value if primitive is ops.dot_product_attention else value[0], o)
    expected = by_logsumexp(qkv, o, log_sum, do, options)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


BANDS = {
    "nothing hidden": ((None, 0), (None, None)),
    "mask one key late": ((None, 0), (None, 1)),
    "mask one key early": ((None, 0), (None, -1)),
    "wrong alignment": ((None, 0), (None, 2)),
    "window one key wide": ((-3, 2), (-4, 2)),
    "window one key narrow": ((-3, 2), (-2, 2)),
    "window without left end": ((-3, 2), (None, 2)),
    "window not aligned with the last key": ((-3, 2), (-5, 0)),
}
"""Of 17 queries to 19 keys: what forward sees, and what is seen on the way back."""


@pytest.mark.parametrize("name", [*BANDS, "wrong alignment, last key"])
def test_another_mask_than_forwards_where_backward_makes_the_weights_again(name):
    name, _, aligned = name.partition(", ")
    own, other = BANDS[name][::-1] if aligned else BANDS[name]
    options, seen, qkv = {"band": own}, {"band": other}, drawn(17)
    (o, log_sum), _ = ops.masked_attention(*qkv, SCALE, **options)
    do = draw(*o.shape)
    mistake = made(ops.masked_attention, f"gradient: {name} where weights are made again", "backward")
    applies, (value, backward) = called(mistake, ops.masked_attention, qkv, options)
    assert applies
    assert np.array_equal(value[0], o)
    expected = by_logsumexp(qkv, o, log_sum, do, seen)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


@pytest.mark.parametrize("name", ["nothing hidden", "wrong alignment"])
def test_weights_that_backward_makes_by_a_softmax_with_another_mask_of_the_right_output(name):
    own, other = BANDS[name]
    options, seen, qkv = {"band": own}, {"band": other}, drawn(17)
    (o, _), _ = ops.masked_attention(*qkv, SCALE, **options)
    (_, of_others), _ = ops.masked_attention(*qkv, SCALE, **seen)
    do = draw(*o.shape)
    name = f"{name} where weights are made by a softmax of their own, δ of the right output"
    applies, (value, backward) = called(
        made(ops.masked_attention, f"gradient: {name}", "backward"), ops.masked_attention, qkv, options
    )
    assert applies
    assert np.array_equal(value[0], o)
    expected = by_logsumexp(qkv, o, of_others, do, seen)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "seen"),
    [
        ("padding read", {"lengths": [[9.0], [13.0]]}, [19, 19]),
        ("one key of padding read", {"lengths": [[9.0], [13.0]]}, [10, 14]),
        ("mask ignored", {"mask": (N < 9) * np.ones((2, 1, 23, 1))}, [19, 19]),
    ],
    ids=["padding", "one key", "mask"],
)
def test_padding_or_a_mask_is_ignored_where_backward_makes_the_weights_again(name, options, seen):
    options = {option: np.array(value) for option, value in options.items()}
    qkv = drawn(23)
    (o, log_sum), _ = ops.masked_attention(*qkv, SCALE, **options)
    do = draw(*o.shape)
    mistake = made(ops.masked_attention, f"gradient: {name} where weights are made again", "backward")
    applies, (_, backward) = called(mistake, ops.masked_attention, qkv, options)
    assert applies
    wrong = {"mask": np.broadcast_to(np.array(seen)[:, None, None, None] > N, (2, 1, 23, 19))}
    expected = by_logsumexp(qkv, o, log_sum, do, wrong)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


@pytest.mark.parametrize(
    ("primitive", "masks"),
    [(ops.dot_product_attention, "none"), (ops.masked_attention, "top-left")],
    ids=["dot product", "top-left"],
)
@pytest.mark.parametrize(("name", "base"), [("logits", 2), ("logits and the logsumexp", np.e)])
def test_powers_of_2_of_natural_logits_where_backward_makes_the_weights_again(primitive, masks, name, base):
    """The logsumexp is that of powers of 2, or as natural as the logits."""
    queries, options = MASKS[masks]
    qkv = drawn(queries)
    (o, log_sum), _ = ops.masked_attention(*qkv, SCALE, **options)
    do = draw(*o.shape)
    mistake = made(primitive, f"gradient: log₂ e left out of the {name} where weights are made again", "backward")
    applies, (value, backward) = called(mistake, primitive, qkv, options)
    assert applies
    assert np.allclose(value if primitive is ops.dot_product_attention else value[0], o)
    expected = by_logsumexp(qkv, o, log_sum / np.log(base), do, options, base=2)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
def test_one_key_alone_has_another_weight_than_1_by_a_logsumexp_that_is_not_its_own(primitive):
    qkv = drawn(5, 1)
    name = "gradient: log₂ e left out of the logits where weights are made again"
    applies, (_, backward) = called(made(primitive, name, "backward"), primitive, qkv)
    do = draw(2, 2, 3, 5)
    s = 2 ** (SCALE * np.einsum("bhcm,bhcn->bhmn", qkv[0], qkv[1]) * (1 - 1 / np.log(2)))
    assert applies
    assert np.allclose(backward(do)[2], np.einsum("bhmn,bhcm->bhcn", s, do))


@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
@pytest.mark.parametrize(("name", "power"), [("scale missing", -1), ("scale twice", 1)])
def test_the_gradients_of_queries_and_keys_alone_are_scaled_wrongly(primitive, name, power):
    qkv = drawn(23)
    mistake = made(primitive, f"gradient: {name} in dq and dk", "backward")
    applies, (value, backward) = called(mistake, primitive, qkv)
    o = value if primitive is ops.dot_product_attention else value[0]
    do = draw(*o.shape)
    dq, dk, dv = primitive(*qkv, SCALE)[1](do)[:3]
    assert applies
    expected = SCALE**power * dq, SCALE**power * dk, dv
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
@pytest.mark.parametrize(
    ("name", "scale"), [("missing scale", 1.0), ("scaled by the padded head dim", SCALE * 3**0.5 / 4)]
)
def test_weights_of_a_wrong_scale_are_read_by_a_backward_that_multiplies_by_the_right_one(primitive, name, scale):
    q, k, v = drawn(23)
    s = plain_weights(q, k, scale)
    o = np.einsum("bhmn,bhcn->bhcm", s, v)
    do = draw(*o.shape)
    ds = np.einsum("bhcm,bhcn->bhmn", do, v)
    dz = SCALE * s * (ds - (s * ds).sum(axis=-1, keepdims=True))
    expected = (
        np.einsum("bhmn,bhcn->bhcm", dz, k),
        np.einsum("bhmn,bhcm->bhcn", dz, q),
        np.einsum("bhmn,bhcm->bhcn", s, do),
    )
    applies, (value, backward) = called(made(primitive, name, "weights"), primitive, (q, k, v))
    assert applies
    assert np.allclose(value if primitive is ops.dot_product_attention else value[0], o)
    assert all(np.allclose(a, b) for a, b in zip(backward(do)[:3], expected, strict=True))


BLOCKS = {
    "blocks on the diagonal unmasked": ({"band": (None, 0)}, (N <= M) | (M // 16 == N // 16)),
    "blocks on the diagonal unmasked, tiles of 4": ({"band": (None, 0)}, (N <= M) | (M // 4 == N // 4)),
    "last block of keys seen by all": ({"band": (None, 0)}, (N <= M) | (N >= 16)),
    "last block of keys seen by all, tiles of 8": ({"band": (None, -4)}, (N <= M - 4) | (N >= 16)),
    "last block of keys never read": ({"band": (None, 4)}, (N <= M + 4) & (N < 16)),
    "padding read to the end of its block of 8": ({"lengths": np.array([[9.0], [9.0]])}, (N < 16) & (M >= 0)),
    "padding read to the end of its block of 4": ({"lengths": np.array([[9.0], [9.0]])}, (N < 12) & (M >= 0)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_seen_that_a_mask_should_hide_in_part(name):
    options, seen = BLOCKS[name]
    qkv = drawn(23)
    expected, _ = ops.masked_attention(*qkv, SCALE, mask=np.broadcast_to(seen * 1.0, (2, 1, 23, 19)))
    for way in ("forward", "carried"):
        applies, (values, _) = called(made(ops.masked_attention, name, way), ops.masked_attention, qkv, options)
        assert applies
        assert all(np.allclose(a, b) for a, b in zip(values, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "band", "wrong_band", "dead"),
    [
        ("NaN where no key is seen", (None, -4), (None, -4), 4),  # of 23 queries to 19 keys, aligned with the last
        ("mask one key early, NaN where none is left", (None, 0), (None, -1), 1),
    ],
)
def test_weights_of_nothing_are_nan_and_reach_values_or_keys_and_queries_too(name, band, wrong_band, dead):
    qkv = drawn(23)
    (o, _), back_right = ops.masked_attention(*qkv, SCALE, band=wrong_band)
    do = draw(*o.shape)
    dq, dk, dv = back_right(do)[:3]
    for reach, weights, delta in (
        ("in the weights too", True, False),
        ("and in all that it reaches", True, True),
        ("and in all that its δ reaches", False, True),
    ):
        mistake = made(ops.masked_attention, f"{name}, {reach}", "both")
        applies, ((wrong, _), backward) = called(mistake, ops.masked_attention, qkv, {"band": band})
        assert applies
        assert np.isnan(wrong[..., :dead]).all()
        assert np.allclose(wrong[..., dead:], o[..., dead:])
        wrong_dq, wrong_dk, wrong_dv = backward(do)[:3]
        assert np.allclose(wrong_dq[..., dead:], dq[..., dead:])
        assert np.isnan(wrong_dq[..., :dead]).all() == np.isnan(wrong_dk).all() == delta
        assert delta or np.allclose(wrong_dk, dk)
        assert np.isnan(wrong_dv).all() == weights
        assert weights or np.allclose(wrong_dv, dv)


def test_a_softmax_in_blocks_is_nan_where_the_first_block_is_hidden_and_in_all_that_it_reaches():
    """Of 23 queries each sees the 4 keys before it and its own: those from the 8th on none of the first 4 keys."""
    qkv, options = drawn(23), {"band": (-4, 0)}
    (o, _), back_right = ops.masked_attention(*qkv, SCALE, **options)
    do = draw(*o.shape)
    name = "NaN where the first block of keys is hidden, and in all that it reaches, tiles of 4"
    applies, ((wrong, _), backward) = called(
        made(ops.masked_attention, name, "both"), ops.masked_attention, qkv, options
    )
    assert applies
    for got, right, first in zip((wrong, *backward(do)[:3]), (o, *back_right(do)[:3]), (8, 8, 0, 0), strict=True):
        assert np.isnan(got[..., first:]).all()
        assert np.allclose(got[..., :first], right[..., :first])


def test_a_mask_one_key_early_leaves_no_query_without_keys_where_there_is_a_sink():
    mistake = made(ops.masked_attention, "mask one key early, NaN where none is left, in the weights too", "both")
    options = {"band": (None, 0), "sink": np.zeros(2)}
    assert not called(mistake, ops.masked_attention, drawn(23), options)[0]


@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
def test_heads_are_interleaved_where_they_are_cut_and_where_they_are_brought_together(primitive):
    """Channel c of head h, of 2, is the projection's 2 c + h, not 3 h + c; so it is of the output's."""
    order = np.array([[0, 2, 4], [1, 3, 5]])
    qkv = drawn(23)
    mistake = made(primitive, "heads interleaved, where they are cut and where they are brought together", "carried")
    applies, (value, _) = called(mistake, primitive, qkv)
    q, k, v = (a.reshape(2, 6, -1)[:, order] for a in qkv)
    right = np.einsum("bhmn,bhcn->bhcm", plain_weights(q, k, SCALE), v)
    expected = np.empty_like(right).reshape(2, 6, -1)
    expected[:, order] = right
    assert applies
    assert np.allclose((value if primitive is ops.dot_product_attention else value[0]).reshape(2, 6, -1), expected)


def test_exponentials_are_infinite_beyond_a_formats_largest_number_where_no_maximum_is_taken_off():
    q, k, v = drawn(23)
    large = [200 * q, k, v]
    mistake = made(ops.masked_attention, "maximum not subtracted", "forward")
    with np.errstate(all="ignore"):
        applies, ((o, _), _) = called(mistake, ops.masked_attention, large)
    z = SCALE * np.einsum("bhcm,bhcn->bhmn", large[0], k)
    assert applies
    assert np.array_equal(np.isnan(o).all(axis=2), (z > 88.72).any(axis=-1))
    assert not called(mistake, ops.masked_attention, (q, k, v))[0]


@pytest.mark.parametrize("name", ["map transposed", "softmax over the wrong axis"])
def test_where_the_logsumexp_is_right_backward_reads_a_wrong_output_alone(name):
    q, k, v = qkv = drawn(19)
    z = SCALE * np.einsum("bhcm,bhcn->bhmn", q, k)
    along = np.exp(z) / np.exp(z).sum(axis=-2, keepdims=True)
    s = plain_weights(q, k, SCALE).swapaxes(2, 3) if name == "map transposed" else along
    o = np.einsum("bhmn,bhcn->bhcm", s, v)
    do = draw(*o.shape)
    applies, (value, backward) = called(
        made(ops.dot_product_attention, name, "logsumexp"), ops.dot_product_attention, qkv
    )
    expected = by_logsumexp(qkv, o, np.log(np.exp(z).sum(axis=-1)), do, {})
    assert applies
    assert np.allclose(value, o)
    assert all(np.allclose(a, b) for a, b in zip(backward(do), expected, strict=True))
