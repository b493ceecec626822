import numpy as np
import pytest

from npattn import CATALOGUE
from tests.pictures.drawing import SEED, panels_of, results, scene, size_of


def test_the_kernel_of_a_pixel_is_what_its_query_makes_of_position_lambdas():
    """A value of 1 at one position and 0 elsewhere shows the kernels of all others, turned round."""
    pytest.importorskip("npattn.pictures.lambdas")
    figure = panels_of("lambda")
    drawn = [np.asarray(a.images[0].get_array()) for a in figure.axes if a.get_title().startswith("kernel of row")]
    made = scene.make_scene(CATALOGUE["lambda"].example(), SEED, None, size_of("lambda"))
    weight, step = made.params["conv_lambda.weight"][:, 0, :, :, 0], 200 // made.size[0]
    u = np.einsum("oc,bchw->bohw", made.params["qkv.weight"][:, :, 0, 0], made.x)[0, :4]
    mean, variance, scale, shift = (
        made.params[f"norm_q.{name}"][:4, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    queries = scale * (u - mean) / np.sqrt(variance + 1e-5) + shift
    assert len(drawn) == len(made.pixels)
    for (row, column), kernel in zip(made.pixels, drawn, strict=True):
        expected = np.einsum("f,fst->st", queries[:, row // step, column // step], weight)
        np.testing.assert_allclose(kernel, expected, rtol=1e-10, atol=1e-12)


def test_channels_of_the_keys_are_drawn_with_the_share_of_the_map_that_holds_half():
    pytest.importorskip("npattn.pictures.lambdas")
    titles = [axes.get_title() for axes in panels_of("lambda").axes]
    keys = results("lambda")[1].attention["keys"][0]
    for f, key in enumerate(keys):
        largest = np.sort(key.ravel())[::-1].cumsum()
        share = (np.searchsorted(largest, 0.5) + 1) / key.size
        assert f"key channel {f}: half on {share:.1%}" in titles
