import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn.fast import blocks


@given(st.lists(st.integers(1, 40), max_size=2), *(st.integers(1, 5000) for _ in range(3)))
def test_blocks_of_a_product_cover_it_once_and_are_worth_a_thread(batch, rows, inner, columns):
    visits = np.zeros((*batch, min(rows, 60), min(columns, 60)), np.uint8)
    found = blocks.blocks_of_product(batch, visits.shape[-2], inner, visits.shape[-1])
    for at, some_rows, some_columns in found:
        visits[at][..., some_rows, some_columns] += 1
    np.testing.assert_array_equal(visits, 1)
    assert len(found) * blocks.MIN_BLOCK_MULTIPLICATIONS <= max(
        4 * visits.size * inner, blocks.MIN_BLOCK_MULTIPLICATIONS
    )


@pytest.mark.parametrize("batch", [(), (1,), (3,), (7,), (2, 3)])
@pytest.mark.parametrize(("rows", "columns"), [(512, 512), (64, 3136), (3136, 64), (256, 784)])
def test_large_products_have_work_for_eight_threads_in_blocks_of_about_the_same_size(batch, rows, columns):
    found = blocks.blocks_of_product(batch, rows, 1024, columns)
    visits = np.zeros((*batch, rows, columns), np.uint8)
    parts = [visits[at][..., i, j].size for at, i, j in found]
    assert 7 <= len(found) <= max(16, 2 * math.prod(batch))
    assert max(parts) <= 2 * min(parts)


def test_a_cut_reads_few_rows_and_columns_anew():
    for rows, columns in ((512, 512), (64, 3136), (3136, 64)):
        found = blocks.blocks_of_product((), rows, 1024, columns)
        read = sum((i.stop - i.start) + (j.stop - j.start) for _, i, j in found)
        fewest = min(p * columns + -(-8 // p) * rows for p in (1, 2, 4, 8))
        assert read <= 1.1 * fewest
