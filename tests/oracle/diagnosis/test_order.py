import dataclasses

import numpy as np
import pytest

from npattn.oracle.diagnosis import read_order
from tests.oracle.diagnosis.distorting import make_case


@pytest.fixture(scope="module")
def case():
    made = make_case((2, 4, 5, 6), "bfloat16")
    others = {"fc1.bias.grad": np.ones(4), "channel": np.ones((2, 4))}
    return dataclasses.replace(made, expected=made.expected | others)


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        ([], ["output"], ""),
        ([], ["x.grad"], ""),
        (["output"], ["x.grad"], "output is right: the forward pass is; the fault is in backward"),
        (["x.grad"], ["output", "fc1.bias.grad"], "output is wrong: gradients follow from it"),
        (["channel"], ["output"], "output is wrong; channel is right: the fault is elsewhere in forward"),
        ([], ["channel", "output", "x.grad"], "channel is wrong: output and gradients follow from it"),
        (
            ["output", "x.grad"],
            ["fc1.bias.grad"],
            "output and x.grad are right: the fault is in backward, in fc1.bias.grad alone",
        ),
    ],
)
def test_what_is_right_says_where_to_look(case, right, wrong, text):
    assert read_order(case, right, wrong) == text


def test_gradients_follow_from_several_wrong_outputs(case):
    two = {f"output.{i}": case.upstream["output"] for i in range(2)}
    several = dataclasses.replace(case, upstream=two, expected=case.expected | two)
    said = "output.0 and output.1 are wrong: gradients follow from them"
    assert read_order(several, [], ["output.0", "output.1", "x.grad"]) == said


def test_a_report_says_how_a_wrong_result_reads_and_where_to_look_first():
    case = make_case((2, 4, 5, 6), "bfloat16")
    y, dx = case.expected["output"], case.expected["x.grad"]
    report = case.compare({"output": y, "x.grad": 0.8 * dx})
    assert report.readings == {"x.grad": "0.8 times expected"}
    lines = str(report).splitlines()
    assert "  reads as: 0.8 times expected" in lines
    assert "output is right: the forward pass is; the fault is in backward" in lines
    assert max(map(len, lines)) <= 80
    assert "reads as" not in str(case.compare({"output": y, "x.grad": dx}))


def test_a_report_reads_results_of_another_shape_and_results_as_they_were():
    case = make_case((2, 4, 5, 6), "bfloat16")
    got = case.expected["output"].transpose(0, 2, 3, 1).copy()
    report = case.compare({"output": got, "x.grad": None})
    got[...] = 0
    assert report.readings == {"output": "right but NHWC: .transpose(0, 3, 1, 2) makes it NCHW"}
