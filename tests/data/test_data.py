import itertools
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import scipy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npattn.data import Filter, photo_features, photo_filters, photograph
from tests.naming import for_each

FOLDER = Path(str(resources.files("npattn.data")))
CHANNELS = st.sampled_from([1, 3, 64, 300])
SIDES = st.integers(1, 40)


def test_photograph_is_rgb_bytes_of_the_size_that_its_page_states():
    image = photograph()
    assert image.shape == (200, 300, 3)
    assert image.dtype == np.uint8
    assert "200 × 300 pixels" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_photograph_has_contrast_and_colour():
    image = photograph().astype(float)
    assert (np.ptp(image, axis=(0, 1)) > 150).all()
    assert (image[..., [0, 0, 1]] - image[..., [1, 2, 2]]).std(axis=(0, 1)).min() > 5


def test_photograph_is_the_callers_own_to_change():
    first = photograph()
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(photograph(), kept)


def test_photograph_is_a_small_file_without_pickled_objects():
    path = FOLDER / "chelsea.npy"
    assert path.stat().st_size <= 200_000
    with path.open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    assert not dtype.hasobject
    assert path.stat().st_size == 128 + np.prod(shape) * dtype.itemsize


def test_licence_stands_beside_the_photograph():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("*.np[yz]"):
        assert f"`{path.name}`" in page
    assert "CC0 1.0" in page
    assert "Stéfan van der Walt" in page


@settings(max_examples=15)
@given(CHANNELS, SIDES, SIDES, st.sampled_from([np.float32, np.float64, "float32"]))
@example(1, 1, 1, np.float64)
@example(300, 7, 5, np.float32)
@example(3, 300, 400, np.float64)
def test_features_of_any_size_are_finite_and_not_negative(channels, height, width, dtype):
    features = photo_features(channels, height, width, dtype)
    assert features.shape == (1, channels, height, width)
    assert features.dtype == dtype
    assert np.isfinite(features).all()
    assert (features >= 0).all()


def test_features_are_double_unless_told_otherwise():
    assert photo_features(1, 2, 2).dtype == np.float64


@settings(max_examples=5)
@given(st.integers(1, 64), SIDES, SIDES)
def test_first_channels_do_not_depend_on_how_many_are_asked_for(channels, height, width):
    np.testing.assert_array_equal(
        photo_features(channels, height, width), photo_features(64, height, width)[:, :channels]
    )


def test_single_precision_is_double_precision_rounded():
    np.testing.assert_array_equal(photo_features(64, 9, 11, np.float32), photo_features(64, 9, 11).astype(np.float32))


def test_same_size_gives_the_same_features():
    first = photo_features(20, 11, 13)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(photo_features(20, 11, 13), kept)


@pytest.mark.parametrize("shape", [(28, 42), (7, 5)])
def test_all_channels_differ_from_each_other(shape):
    channels = photo_features(300, *shape)[0].reshape(300, -1)
    channels /= np.linalg.norm(channels, axis=1, keepdims=True)  # nor is one a multiple of another
    cosines = channels @ channels.T
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < 1 - 1e-6


def test_filters_differ_from_each_other_and_are_named_so():
    filters = photo_filters(300)
    assert len(set(filters)) == 300
    assert {(bank.order, bank.sigma, bank.plane) for bank in filters} == set(
        itertools.product((1, 2), (1.0, 2.0, 4.0), ("luminance", "red-green", "blue-yellow"))
    )
    assert str(Filter(2, 4.0, "red-green", np.pi / 4)) == "line 45°, σ 4, red-green"


@for_each("channels", [2, 3, 10, 64, 299, 300])
def test_filters_leave_no_direction_out(channels):
    angles = np.sort([bank.angle for bank in photo_filters(channels)])
    assert angles[0] >= 0
    assert angles[-1] < np.pi
    gaps = np.diff(angles, append=angles[0] + np.pi)
    assert gaps.max() < 3 * np.pi / channels


def colour_plane(name):
    red, green, blue = np.moveaxis(photograph() / 255.0, -1, 0)
    return {
        "luminance": (red + green + blue) / np.sqrt(3),
        "red-green": (red - green) / np.sqrt(2),
        "blue-yellow": (2 * blue - red - green) / np.sqrt(6),
    }[name]


def gradient_unit():
    """Root mean square of the luminance's gradient at σ = 1, by convolution with a sampled kernel."""
    t = np.arange(-8, 9)
    smooth = np.exp(-(t**2) / 2) / np.exp(-(t**2) / 2).sum()
    slope = -t * smooth
    plane = np.pad(colour_plane("luminance"), 8, mode="edge")

    def convolve(kernel, axis, image):
        return np.apply_along_axis(np.convolve, axis, image, kernel, mode="valid")

    x = convolve(slope, 1, convolve(smooth, 0, plane))
    y = convolve(slope, 0, convolve(smooth, 1, plane))
    return np.sqrt(np.mean(x**2 + y**2))


@pytest.mark.parametrize("halved", [False, True], ids=["full size", "half size"])
def test_every_channel_is_the_directional_derivative_of_the_smoothed_picture(halved):
    unit = gradient_unit()
    features = photo_features(36, 100, 150) if halved else photo_features(36, 200, 300)
    checked = 0
    for channel, bank in enumerate(photo_filters(36)):
        if bank.sigma < 2:  # differences between pixels are too coarse for it
            continue
        derivative = scipy.ndimage.gaussian_filter(colour_plane(bank.plane), bank.sigma, mode="nearest")
        for _ in range(bank.order):
            along_y, along_x = np.gradient(derivative)
            derivative = bank.sigma * (np.cos(bank.angle) * along_x + np.sin(bank.angle) * along_y)
        if halved:  # a position of the half-sized map lies amid four pixels
            derivative = derivative.reshape(100, 2, 150, 2).mean(axis=(1, 3))
        expected = np.abs(derivative) / unit
        difference = np.sqrt(np.mean((features[0, channel] - expected) ** 2) / np.mean(expected**2))
        assert difference < (0.06 if bank.order == 1 else 0.25) * (2 / bank.sigma) ** 2, bank
        checked += 1
    assert checked == 24


@pytest.mark.parametrize("name", ["channels", "height", "width"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("3", TypeError), (None, TypeError)],
)
def test_bad_size_is_refused_by_name(name, value, error):
    with pytest.raises(error) as caught:
        photo_features(**{"channels": 2, "height": 3, "width": 4, name: value})
    assert str(caught.value).startswith(f"photo_features: {name}={value!r}")
    assert "expected an int" in str(caught.value)


def test_sizes_may_be_numpys_integers():
    np.testing.assert_array_equal(photo_features(np.int64(2), np.int32(3), np.uint8(4)), photo_features(2, 3, 4))
