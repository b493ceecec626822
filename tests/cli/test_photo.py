import numpy as np
import pytest

from npattn import CATALOGUE, ChannelAttention, PositionAttention, Residual
from npattn.cli.photo import CHECKED_SIZE, CROP_SIZE, PAIRED_SIZE, checked_size, photo_values
from tests.benchmarks.work import count_work
from tests.naming import for_each


def test_crop_shows_a_part_of_the_photograph_that_is_not_flat():
    x = next(iter(photo_values(CATALOGUE["se"].example(), CROP_SIZE, 0)[1].values()))
    assert x.shape[2:] == (3, 4)
    assert (np.ptp(x, axis=(0, 2, 3)) > 0.01).all()


@for_each("key", CATALOGUE)
def test_systems_that_pair_positions_are_those_whose_work_grows_as_the_square_of_the_positions(key):
    module = CATALOGUE[key].example()
    few, many = (count_work(module, (1, 16, side, side))[0][0] for side in (100, 200))
    assert module.pairs_positions == (many > 8 * few)  # four times the positions


def test_a_system_is_checked_on_a_map_that_its_work_allows():
    pairing, other = PositionAttention(2), ChannelAttention(2)
    assert checked_size(pairing) == checked_size(Residual(Residual(pairing))) == PAIRED_SIZE
    assert checked_size(other) == checked_size(Residual(other)) == CHECKED_SIZE


@pytest.mark.parametrize("size", [(3, 4), (40, 60), (50, 7)])
def test_a_map_of_any_size_is_filled_with_the_photograph(size):
    x = photo_values(ChannelAttention(2), size, 0)[1]["x"]
    assert x.shape == (1, 2, *size)
    assert (x >= 0).all()  # magnitudes; random numbers have both signs


def test_a_map_of_whole_blocks_is_filled_with_the_photograph_too():
    x = photo_values(CATALOGUE["halo"].example(), (3, 5), 0)[1]["x"]
    assert x.shape == (1, 16, 4, 6)
    assert (x >= 0).all()
