import dataclasses

import numpy as np
import pytest

import npattn
from npattn.oracle import golden
from npattn.oracle.diagnosis import read_result
from tests.oracle.diagnosis.distorting import make_case, rounded

OTHER_SHAPES = {
    "right but NHWC: .transpose(0, 3, 1, 2) makes it NCHW": lambda y: y.transpose(0, 2, 3, 1),
    "right but for the order of its axes: .transpose(1, 0, 2, 3) mends it": lambda y: y.swapaxes(0, 1),
    "right but for its shape": lambda y: y.reshape(3, 8, 30),
    "right once merged axes are parted: .reshape(3, 5, 8, 6).transpose(0, 2, 1, 3) mends it": lambda y: y.swapaxes(
        1, 2
    ).reshape(3, 5, 48),
    "right once its sum over axis 0 is taken, which is missing": lambda y: np.stack([0.25 * y, 0.75 * y]),
    "right once its mean over axis 4 is taken, which is missing": lambda y: np.stack([0.5 * y, 1.5 * y], -1),
    "right once the channels of each group of 3 are added up: .reshape(3, 8, 3, 5, 6).sum(2) mends it": lambda y: (
        np.stack([0.5 * y, 0.75 * y, -0.25 * y], 2).reshape(3, 24, 5, 6)
    ),
    "right once the images of each group of 2 are averaged: .reshape(3, 2, 8, 5, 6).mean(1) mends it": lambda y: (
        np.stack([0.5 * y, 1.5 * y], 1).reshape(6, 8, 5, 6)
    ),
    "the sum of expected over axis 0: reduced too far": lambda y: y.sum(axis=0),
    "the mean of expected over axis 2, 3: reduced too far": lambda y: y.mean(axis=(2, 3)),
}


@pytest.mark.parametrize("text", OTHER_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_mends_another_shape_is_said(text, dtype):
    case = make_case((3, 8, 5, 6), dtype)
    got = rounded(case, OTHER_SHAPES[text](case.expected["output"]))
    assert read_result(case, "output", got) == text
    shuffled = np.random.RandomState(0).permutation(got.ravel()).reshape(got.shape)
    assert not read_result(case, "output", shuffled)
    assert not read_result(case, "output", got + 1)


def test_heads_that_share_keys_and_are_not_added_up_are_named():
    module = npattn.ScaledDotProductAttention(heads=6, key_heads=2, head_dim=4)
    case = golden(module, batch=2, height=5, width=7, dtype="bfloat16", certify=False)
    upstream, query = np.array(case.upstream["output"], float), np.array(case.inputs["query"], float)
    key, value = (np.repeat(np.array(case.inputs[name], float), 3, axis=1) for name in ("key", "value"))
    (_, dkey, _), _ = dataclasses.replace(module, key_heads=6)({}, query, key, value).backward(upstream)
    reading = read_result(case, "key.grad", rounded(case, dkey))
    assert reading == "right once the heads of each group of 3 are added up: .reshape(2, 2, 3, 7, 4).sum(2) mends it"
