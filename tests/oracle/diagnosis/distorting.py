"""Made-up cases whose budgets are those of a format's rounding, kernels that round so, and what distorts a result."""

import numpy as np
from hypothesis import strategies as st

import npattn
from npattn.oracle import FORMATS, Case
from npattn.oracle.budgets import rms_limit, worst_limit
from npattn.oracle.formats import representable, ulp

PRECISE = [name for name, format in FORMATS.items() if format.precision >= 8]
COARSE = [name for name, format in FORMATS.items() if format.precision < 8]


@st.composite
def made_up(draw, formats):
    """What `make_case` makes a case of: maps whose rows are as many as their columns now and then."""
    batch, height = draw(st.integers(2, 3)), draw(st.integers(5, 8))
    shape = batch, draw(st.sampled_from([4, 10])), height, draw(st.sampled_from([height, 9]))
    return shape, draw(st.sampled_from(formats)), draw(st.integers(0, 2**32 - 1))


def make_case(shape, dtype, seed=0):
    random = np.random.RandomState(seed)
    format = FORMATS[dtype]
    drawn = {name: representable(random.standard_normal(shape), format) for name in ("x", "dy")}
    expected = {name: random.standard_normal(shape) for name in ("output", "x.grad")}
    size = expected["output"].size
    return Case(
        npattn.SqueezeExcitation(shape[1], 1),
        dtype,
        seed,
        "generic",
        inputs={"x": drawn["x"].astype(np.float32)},
        params={"fc1.bias": representable(random.standard_normal(shape[1]), format).astype(np.float32)},
        upstream={"output": drawn["dy"].astype(np.float32)},
        expected=expected,
        budget={name: 0.3 * ulp(y, format, format.operand_precision) for name, y in expected.items()},
        limits=dict.fromkeys(expected, (worst_limit(size), rms_limit(size))),
        freedom=dict.fromkeys(expected, float(size)),
        digits=dict.fromkeys(expected, 15.0),
    )


def rounded(case, values, seed=0):
    """What a kernel that is right but for a distortion gives: each element is off by a few roundings."""
    format = case.format
    noise = np.random.RandomState(seed + 1).uniform(-0.5, 0.5, values.shape)
    return representable(values + noise / 3 * ulp(values, format, format.operand_precision), format)


def filled(y, value, *where):
    y = y.copy()
    y[where] = value
    return y


ALL = slice(None)
DISTORTIONS = {
    "0.8 times expected": lambda y, case: 0.8 * y,
    "other sign": lambda y, case: -y,
    "(1/(H W)": lambda y, case: y / (y.shape[2] * y.shape[3]),
    "1.443 times expected (1/ln 2)": lambda y, case: y / np.log(2),
    "expected plus 0.7": lambda y, case: y + 0.7,
    "NHWC": lambda y, case: y.transpose(0, 2, 3, 1).reshape(y.shape),
    "columns x rows|rows and columns exchanged": lambda y, case: y.swapaxes(2, 3).reshape(y.shape),
    "reversed along its rows": lambda y, case: y[:, :, ::-1],
    "turned by 180": lambda y, case: y[:, :, ::-1, ::-1],
    "by 1 along its columns, towards the end, circularly": lambda y, case: np.roll(y, 1, 3),
    "by 1 along its rows, towards the start, with 0": lambda y, case: np.pad(y, ((0, 0),) * 2 + ((0, 1), (0, 0)))[
        :, :, 1:
    ],
    "along its images": lambda y, case: np.roll(y, 1, 0),
    "image 0 in place of all": lambda y, case: np.broadcast_to(y[:1], y.shape),
    "channels shuffled: 2 x": lambda y, case: y.reshape(len(y), 2, -1, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape),
    "channels permuted: 0 is 2": lambda y, case: y[:, [2, 0, 3, 1, *range(4, y.shape[1])]],
    "channels 1 and 3 exchanged": lambda y, case: y[:, [0, 3, 2, 1, *range(4, y.shape[1])]],
    "it is the upstream gradient": lambda y, case: case.upstream["output"].astype(float),
    "it is the input x": lambda y, case: case.inputs["x"].astype(float),
    "it is x.grad": lambda y, case: case.expected["x.grad"],
    "minus the input x, as if that were left out": lambda y, case: y - case.inputs["x"],
    "plus x.grad, as if that were added": lambda y, case: y + case.expected["x.grad"],
    "minus the parameter fc1.bias": lambda y, case: y - case.params["fc1.bias"][:, None, None],
    "the mean of expected over its rows and columns": lambda y, case: 0 * y + y.mean((2, 3), keepdims=True),
    "the sum of expected over its images": lambda y, case: 0 * y + y.sum(0),
    "0 everywhere": lambda y, case: 0 * y,
    "0.25 everywhere": lambda y, case: 0 * y + 0.25,
    "NaN everywhere": lambda y, case: np.nan * y,
    "NaN in the last 2 rows; all else": lambda y, case: filled(y, np.nan, ALL, ALL, slice(-2, None)),
    "wrong in channel 3 alone, where it is 0": lambda y, case: filled(y, 0, ALL, 3),
    "wrong in odd columns alone, where it is 0": lambda y, case: filled(y, 0, ..., slice(1, None, 2)),
    "a border of 1 of the rows and columns alone, where it is 0": lambda y, case: np.pad(
        y[:, :, 1:-1, 1:-1], ((0, 0), (0, 0), (1, 1), (1, 1))
    ),
    "plus one number for each image and channel": lambda y, case: y + 0.7 * case.expected["x.grad"][:, :, :1, :1],
    "times one factor for each channel": lambda y, case: (
        y * np.random.RandomState(0).uniform(0.3, 3, (y.shape[1], 1, 1))
    ),
    "image 1|images after the first": lambda y, case: filled(y, 2 * y[1:], slice(1, None)),
}
"""What may be done to a result, by a piece of what is then said of it."""
