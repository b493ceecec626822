import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import affinity
from tests.memory import peak_of_both
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that none of the tests' sizes fill evenly."""
    monkeypatch.setattr(affinity, "BLOCK_ROWS", 2)


def both(u, v):
    """Sums and totals in one array, with the gradient of it."""
    (t, s), backward = ops.affinity_sums(u, v)
    return np.concatenate([t, s], axis=1), lambda d: backward(d[:, :-1], d[:, -1:])


def features_and_maps(positions):
    """Arguments of so many positions, in single precision."""
    return [normal(1, n, positions, seed=n).astype(np.float32) for n in (8, 3)]


def whole(u, v):
    """The same as it is written, with all affinities at once."""
    a = np.einsum("bei,bej->bij", u, u)
    a = np.where(a > 0, a, 0)
    return np.concatenate([v @ a, a.sum(axis=1, keepdims=True)], axis=1)


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, st.integers(0, 4), st.integers(1, 20)), st.sampled_from([1, 2, 3, 256]), seeds)
def test_values_and_gradients_agree_with_pytorch_however_the_work_is_cut(shape, rows, seed):
    torch = pytest.importorskip("torch")
    batch, embedding, maps, positions = shape
    u, v = normal(batch, embedding, positions, seed=seed), normal(batch, maps, positions, seed=seed + 1)
    d = normal(batch, maps + 1, positions, seed=seed + 2)

    def published(u, v):
        a = torch.relu(u.transpose(1, 2) @ u)
        return torch.cat([v @ a, a.sum(dim=1, keepdim=True)], dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinity, "BLOCK_ROWS", rows)
        value, backward = both(u, v)
        gradients = backward(d)
    expected, theirs = torch_gradients(published, d, u, v)
    for ours, reference in zip((value, *gradients), (expected, *theirs), strict=True):
        scale = np.abs(reference).max(initial=1e-3)
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-12 * scale)


@settings(max_examples=20)
@given(seeds)
def test_positions_at_right_angles_and_beyond_take_nothing_and_learn_nothing(seed):
    u = np.array([[[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]])
    v, d = normal(1, 2, 3, seed=seed), normal(1, 3, 3, seed=seed + 1)
    value, backward = both(u, v)
    own = np.array([1.0, 4.0, 1.0])
    np.testing.assert_array_equal(value, np.concatenate([v * own, own[None, None]], axis=1))
    du, dv = backward(d)
    np.testing.assert_array_equal(dv, d[:, :-1] * own)
    own_gradient = (d[:, :-1] * v).sum(axis=1) + d[:, -1]
    np.testing.assert_allclose(du, 2 * u * own_gradient[:, None], rtol=1e-13, atol=1e-13)


def test_rearranged_positions_give_rearranged_sums(small_blocks):
    u, v = normal(1, 3, 9), normal(1, 2, 9, seed=1)
    there = np.random.RandomState(0).permutation(9)
    np.testing.assert_allclose(both(u[:, :, there], v[:, :, there])[0], both(u, v)[0][:, :, there], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_other_numbers_keep_their_dtype_and_agree_with_float64(small_blocks, dtype):
    u, v, d = normal(2, 3, 7), normal(2, 2, 7, seed=1), normal(2, 3, 7, seed=2)
    expected, back = both(u, v)
    np.testing.assert_allclose(expected, whole(u, v), rtol=1e-12)
    value, backward = both(u.astype(dtype), v.astype(dtype))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    gradients = () if dtype == np.complex128 else backward(d.astype(dtype))  # which are real code
    for found, reference in zip((value, *gradients), (expected, *back(d)), strict=False):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, reference, rtol=tolerance, atol=tolerance)


def test_affinity_runs_on_a_device_array_and_gives_the_same_bits(small_blocks):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    u, v, d = (normal(2, n, 7, seed=n).astype(np.float32) for n in (3, 2, 3))
    value, backward = both(u, v)
    found, back = both(DeviceArray(u), DeviceArray(v))
    for ours, host in zip((found, *back(DeviceArray(d))), (value, *backward(d)), strict=True):
        assert ours.get().tobytes() == host.tobytes()


def test_nan_in_a_feature_reaches_everything_and_in_a_value_its_own_map(small_blocks):
    u, v = normal(1, 3, 7), normal(1, 2, 7, seed=1)
    spoilt = u.copy()
    spoilt[0, 1, 4] = np.nan
    assert np.isnan(both(spoilt, v)[0]).all()
    spoilt = v.copy()
    spoilt[0, 1, 4] = np.nan
    np.testing.assert_array_equal(np.isnan(both(u, spoilt)[0])[0].any(axis=1), [False, True, False])


def test_an_affinity_of_minus_infinity_counts_for_nothing_forward_and_backward(small_blocks):
    u, v = np.array([[[2.0**700, -(2.0**400), 0.0]]]), np.array([[[3.0, 5.0, 7.0]]])
    with np.errstate(over="ignore"):
        value, backward = both(u, v)
        du, dv = backward(np.ones((1, 2, 3)))
    np.testing.assert_array_equal(value, [[[np.inf, 5 * 2.0**800, 0], [np.inf, 2.0**800, 0]]])
    np.testing.assert_array_equal(du, [[[2.0**703, -12 * 2.0**400, 0]]])
    np.testing.assert_array_equal(dv, [[[np.inf, 2.0**800, 0]]])


def test_memory_grows_as_the_positions_and_not_as_their_square():
    small, large = (peak_of_both(both, *features_and_maps(positions)) for positions in (1024, 4096))
    assert large < 4.5 * small  # 16 times, if the affinities were held
    assert large < 4096**2 * 4 / 2
