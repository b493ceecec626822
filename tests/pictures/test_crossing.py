import numpy as np
import pytest

from npattn import CATALOGUE, trace
from tests.pictures.drawing import SEED, panels_of, results, scene


def test_what_is_read_of_both_branches_makes_the_gate_of_the_group_that_varies_most():
    pytest.importorskip("npattn.pictures.crossing")
    x, run = results("ema")
    gates = run.attention["cross"][0]
    group = int(np.argmax(gates.std(axis=(1, 2))))
    titled = {axes.get_title(): axes.images[0].get_array() for axes in panels_of("ema").axes if axes.images}
    np.testing.assert_allclose(titled["gate e"], gates[group])
    module = CATALOGUE["ema"].example()
    size = module.channels // module.groups
    mean = x[0, group * size : (group + 1) * size].mean(axis=0)
    np.testing.assert_allclose(titled[f"group {group}: mean of its channels"], mean)
    read = [titled[f"of the {branch} branch, less its median"] for branch in ("gated", "3×3")]
    logits = np.log(gates[group] / (1 - gates[group]))
    rest = logits - sum(read)  # the two medians
    np.testing.assert_allclose(rest, rest.mean(), rtol=1e-6, atol=1e-9)
    params = scene.telling_parameters(module, module.init(SEED, generic=True), x)
    convolved = trace(module, params, x)["(15) r"].value[group].reshape(read[1].shape)
    np.testing.assert_allclose(read[1], convolved - np.median(convolved))
