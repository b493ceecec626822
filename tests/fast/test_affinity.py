import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.fast import threads
from npattn.fast.affinity import add_in_order, blocks_of_affinity
from tests.memory import peak_of_both
from tests.ops.primitives import normal, patched, way_taken
from tests.ops.test_affinity import both, features_and_maps
from tests.strategies import seeds, sizes

tilings = st.sampled_from([(1, 1), (1, 2), (6, 2), (3, 40), (512, 768)])


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, st.integers(0, 4), st.integers(1, 20)), tilings, seeds)
def test_halves_give_the_whole_however_they_are_cut(shape, tiling, seed):
    batch, embedding, maps, positions = shape
    u, v = normal(batch, embedding, positions, seed=seed), normal(batch, maps, positions, seed=seed + 1)
    d = normal(batch, maps + 1, positions, seed=seed + 2)
    expected, back = both(u, v)
    with patched("MIN_PARALLEL_SIZE", 1), patched("BLOCK_ROWS", tiling[0]), patched("BLOCK_COLUMNS", tiling[1]):
        value, backward = both(u, v)
        gradients = backward(d)
    for ours, theirs in zip((value, *gradients), (expected, *back(d)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max(initial=1e-3))


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(1, 20), tilings)
def test_blocks_and_their_mirror_images_cover_every_pair_once(images, positions, tiling):
    with patched("BLOCK_ROWS", tiling[0]), patched("BLOCK_COLUMNS", tiling[1]):
        blocks = blocks_of_affinity(images, positions)
    visits = np.zeros((images, positions, positions))
    for at, rows, columns in blocks:
        visits[at, rows, columns] += 1
        if columns != rows:
            visits[at, columns, rows] += 1
    np.testing.assert_array_equal(visits, 1)


def test_parts_are_added_in_their_order_whoever_computes_them(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 4)
    blocks = [(slice(0, 1), slice(0, 1), slice(i, i + 1)) for i in range(40)]
    random, total = np.random.RandomState(0), np.zeros((1, 1, 1), np.float32)
    values, pauses = random.standard_normal(40).astype(np.float32), random.uniform(0, 2e-3, 40)

    def compute(at, m, n):
        time.sleep(pauses[n.start])
        return [(m, (values[n.start].reshape(1, 1, 1),))]

    add_in_order(compute, blocks, total)
    assert total[0, 0, 0] == np.add.accumulate(values)[-1]


@pytest.mark.parametrize(("positions", "large"), [(255, False), (256, True), (257, True)])
def test_halves_are_taken_from_2_to_the_17_pairs_on(positions, large):
    u = np.ones((2, 1, positions), np.float32)
    assert (way_taken(ops.affinity_sums, u, u) == "affinity_sums_by_halves") is large


def test_memory_grows_as_the_positions_and_not_as_their_square():
    small, large = (peak_of_both(both, *features_and_maps(positions)) for positions in (1024, 4096))
    assert large < 4.5 * small  # 16 times, if the affinities were held
    assert large < 4096**2 * 4 / 4
