import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.fast import masking
from npattn.fast.blocks import NUM_BLOCKS
from npattn.ops.context import definitions
from tests.fast.test_attention import tilings
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched, warned, way_taken
from tests.ops.test_attention import arrays
from tests.strategies import seeds

LEADS = [(), (3,), (2, 3), (1, 2, 2)]
bounds = st.none() | st.integers(-12, 12)


def options_of(random, lead, queries, keys, names):
    """Arrays that the options ask for, each broadcast in some way, some of which hide all keys of some queries."""

    def wide(*rest):
        start = random.randint(0, len(lead) + 1)
        kept = tuple(n if random.randint(2) else 1 for n in lead[start:])
        return (*kept, *rest)

    found = {}
    if "bias" in names:
        found["bias"] = random.standard_normal(wide(queries, keys))
    if "mask" in names:
        found["mask"] = (random.uniform(size=wide(queries, keys)) < random.choice([0.1, 0.6])).astype(float)
    if "sink" in names:
        found["sink"] = random.standard_normal(wide())
    if "lengths" in names:
        found["lengths"] = random.randint(-1, keys + 3, wide()).astype(float)
    return found


def run(qkv, do, dl, **options):
    (o, log_sum), backward = ops.masked_attention(*qkv, **options)
    return [a for a in (o, log_sum, *backward(do, dl)) if a is not None]


@settings(max_examples=60)
@given(
    st.sampled_from(LEADS),
    st.tuples(*[st.integers(1, 12)] * 4),
    st.sets(st.sampled_from(["bias", "mask", "sink", "lengths"])),
    st.fixed_dictionaries({"band": st.tuples(bounds, bounds), "softcap": st.sampled_from([None, 0.8, 30.0])}),
    st.tuples(st.sampled_from([1, 3]), tilings, seeds),
)
def test_seen_blocks_are_the_definition_however_the_work_is_cut(lead, shape, names, plain, circumstance):
    *cut, seed = circumstance
    *qkv, do = arrays(lead, shape, seed)
    random = np.random.RandomState(seed)
    options = options_of(random, lead, *shape[2:], names) | plain | {"scale": 0.5}
    dl = random.standard_normal((*lead, shape[2]))
    with definitions():
        expected = run(qkv, do, dl, **options)
    with in_blocks(*cut):
        assert way_taken(ops.masked_attention, *qkv, **options) == "attention_in_seen_blocks"
        found = run(qkv, do, dl, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("most", [0, 2**21])
@pytest.mark.parametrize("size", [20, 130])
def test_with_a_bias_for_each_pair_all_is_as_by_definition_whether_weights_are_kept_or_not(most, size):
    *qkv, do = arrays((2, 2), (size, size, 110, 100))
    options = {
        "bias": normal(2, 2, 110, 100),
        "scale": 0.1,
        "mask": (normal(110, 100) > 0).astype(float),
        "sink": normal(2, 1),
    }
    with definitions():
        expected = run(qkv, do, 0.0, **options)
    with in_blocks(2, (2**12, 64, (576, 768))), patched("MAX_KEPT_WEIGHTS", most):
        found = run(qkv, do, 0.0, **options)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["q", "k", "v", "bias", "do"])
def test_what_is_masked_is_without_effect_and_without_warning(which, junk):
    q, k, v, do = arrays((2,), (3, 4, 5, 6))
    mask = np.ones((5, 6))
    mask[2] = mask[:, 4] = 0
    given = {"q": q, "k": k, "v": v, "bias": normal(5, 6), "do": do}
    clean = given["do"].copy()
    clean[..., 2] = 0

    def both(given):
        return run([given[name] for name in "qkv"], given["do"], 0.0, bias=given["bias"], mask=mask)

    with in_blocks():
        expected = both(given | {"do": clean})
        place = {"q": (..., 2), "k": (..., 4), "v": (..., 4), "bias": (slice(None), 4), "do": (..., 2)}[which]
        given[which][place] = junk
        found, warnings = warned(both, given)
    assert warnings == set()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@for_each("beyond", [-1e4, -200.0, -30.0, 30.0, 200.0, 1e4])
def test_logits_of_any_size_give_averages_whose_weights_lose_nothing(beyond):
    *qkv, do = (a.astype(np.float32) for a in arrays((2, 3), (3, 4, 9, 11)))
    bias = np.zeros((3, 9, 11), np.float32)
    bias[1, ::2] = beyond  # some rows of some blocks
    with definitions():
        expected = run(*wide(qkv, do), 0.0, bias=bias.astype(float))
    with in_blocks():
        found, warnings = warned(lambda: run(qkv, do, 0.0, bias=bias))
    assert warnings == set()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * max(1, abs(beyond) / 30))


def wide(qkv, do):
    return [a.astype(float) for a in qkv], do.astype(float)


def test_products_that_overflow_where_nothing_is_seen_are_without_effect():
    *qkv, do = arrays((2,), (3, 4, 5, 6))
    mask = np.ones((5, 6))
    mask[:, 4] = 0
    qkv[2][..., 4] = do[...] = 1e200
    with definitions():
        expected = run(qkv, do, 0.0, mask=mask)
    with in_blocks():
        found = run(qkv, do, 0.0, mask=mask)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max())


def test_a_bias_that_serves_all_images_has_its_gradient_made_on_several_threads():
    blocks_of_loops = []

    def watch(work, blocks, products=False):
        blocks = list(blocks)
        if products:
            blocks_of_loops.append(blocks)
        for block in blocks:
            work(block)

    qkv = [normal(64, 3, 7, seed=i) for i in range(3)]
    with in_blocks(tiles=(12, 2, (64, 64))), patched("parallel_for", watch):
        run(qkv, normal(64, 3, 7), 0.0, bias=normal(7, 7))
    assert len(blocks_of_loops[-1]) == NUM_BLOCKS


def test_blocks_of_which_nothing_is_seen_are_not_computed(monkeypatch):
    made = []
    logits = masking.Pairs.logits

    def count(self, at, m, n, *rest):
        made.append((m.stop - m.start) * (n.stop - n.start) * np.empty(self.shape[:-2])[at].size)
        return logits(self, at, m, n, *rest)

    monkeypatch.setattr(masking.Pairs, "logits", count)
    q, k, v, do = arrays((2,), (3, 4, 64, 64))

    def share(**options):
        made.clear()
        with in_blocks(1, (64, 2, (8, 8))):
            run((q, k, v), do, 0.0, **options)
        return sum(made) / (2 * 2 * 64 * 64)  # forward and backward

    assert share() == 1
    assert 0.5 < share(band=(None, 0)) < 0.6
    assert share(band=(-4, 0)) < 0.3
    assert share(lengths=np.array([16.0, 64.0])) == pytest.approx(0.625)
    assert share(lengths=np.array([0.0])) == 0


@for_each(
    "other",
    [
        {"bias": normal(400, 400).astype(np.float32)},
        {"mask": np.ones((400, 400), bool)},
        {"sink": np.zeros((), np.longdouble)},
        {"lengths": np.array(3)},
        {"bias": normal(1, 400)},
    ],
)
def test_other_numbers_and_shapes_are_left_to_the_definition(other):
    q, k, v, _ = arrays((), (1, 1, 400, 400))
    assert way_taken(ops.masked_attention, q, k, v) == "attention_in_seen_blocks"
    assert way_taken(ops.masked_attention, q, k, v, **other) == "definition"


@pytest.mark.parametrize("name", ["bias", "mask", "sink", "lengths"])
def test_options_are_not_written_to(name):
    q, k, v, do = arrays((2,), (3, 4, 9, 11))
    options = options_of(np.random.RandomState(0), (2,), 9, 11, [name])
    before = options[name].copy()
    options[name].flags.writeable = False
    with in_blocks():
        run((q, k, v), do, 0.0, **options)
    np.testing.assert_array_equal(options[name], before)


def test_bits_with_a_bias_that_serves_all_are_the_same_on_any_number_of_threads():
    q, k, v, do = (a.astype(np.float32) for a in arrays((4,), (3, 4, 40, 50)))
    bias = normal(1, 40, 50).astype(np.float32)
    found = []
    for count in (1, 2, 3):
        with in_blocks(count), patched("BLOCK_LOGITS", 64):
            found.append(run((q, k, v), do, 0.0, bias=bias))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)
