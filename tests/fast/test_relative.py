import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.context import definitions
from tests.ops.primitives import in_blocks, normal, way_taken
from tests.strategies import seeds, sizes


def run(q, tables, dz):
    z, backward = ops.relative_logits(q, *tables, scale=0.5)
    return [z, *backward(dz)]


def arrays(lead, size, more, seed=0):
    """Queries, vectors for `more` rows and columns of keys than there are of queries, and a gradient."""
    keys = [n + m for n, m in zip(size, more, strict=True)]
    q = normal(*lead, 3, *size, seed=seed)
    tables = [normal(2 * n - 1, 3, seed=seed + 1 + i) for i, n in enumerate(keys)]
    return q, tables, normal(*lead, np.prod(size), np.prod(keys), seed=seed + 3)


@settings(max_examples=20)
@given(
    st.sampled_from([(), (3,), (2, 3), (1, 2, 2)]),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from([1, 3]),
    seeds,
)
def test_logits_at_once_are_those_of_the_definition_for_any_maps_of_queries_and_keys(lead, size, more, count, seed):
    given_arrays = arrays(lead, size, more, seed)
    with definitions():
        expected = run(*given_arrays)
    with in_blocks(count):
        assert way_taken(ops.relative_logits, given_arrays[0], *given_arrays[1]) == "relative_logits_at_once"
        found = run(*given_arrays)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1])
def test_a_vector_that_no_query_asks_for_is_without_effect_whatever_it_is(which):
    q, tables, dz = arrays((2,), (3, 4), (2, 2))
    tables[which][0] = np.nan  # of keys further off than any is
    with in_blocks():
        found = run(q, tables, dz)
    assert all(np.isfinite(a).all() for a in found)


def test_fewer_keys_than_queries_are_left_to_the_definition():
    q, tables, _ = arrays((2,), (3, 4), (0, 0))
    with in_blocks():
        assert way_taken(ops.relative_logits, q, *tables) == "relative_logits_at_once"
        assert way_taken(ops.relative_logits, q, tables[0][1:-1], tables[1]) == "definition"
        assert way_taken(ops.relative_logits, q, tables[0], tables[1][1:-1]) == "definition"
