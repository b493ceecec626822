"""Mistakes in reading a mask, in systems of somebody's own."""

import numpy as np
import pytest

from npattn.oracle import golden
from npattn.oracle.mistakes import own_masks
from tests.own_systems import CausalHead


def kernel(case, mask):
    """The head in float32, with another mask."""
    q, k, v = (case.inputs[name].astype(np.float32) for name in "qkv")
    scale, dy = np.float32(case.module.channels**-0.5), case.upstream["output"].astype(np.float32)
    e = np.exp(scale * q @ k.swapaxes(1, 2)) * mask
    a = e / e.sum(axis=-1, keepdims=True)
    da = dy @ v.swapaxes(1, 2)
    dz = scale * a * (da - (a * da).sum(axis=-1, keepdims=True))
    return {"output": a @ v, "q.grad": dz @ k, "k.grad": dz.swapaxes(1, 2) @ q, "v.grad": a.swapaxes(1, 2) @ dy}


@pytest.fixture(scope="module")
def case():
    return golden(CausalHead(8), batch=2, height=5, width=5, dtype="float32")


@pytest.mark.parametrize(
    ("words", "mask"),
    [
        ("mask left out", np.ones((5, 5))),
        ("mask one place late along its last axis", np.tri(5, 5, 1)),
        ("mask transposed", np.tri(5).T),
    ],
)
def test_a_mask_that_is_read_otherwise_is_named(case, words, mask):
    assert case.compare(kernel(case, np.tri(5))).passed
    found = case.diagnose(kernel(case, np.float32(mask)))
    assert found.sure
    assert [one.name for one in found[0].mistakes] == [words]


@pytest.mark.parametrize(
    ("ending", "names"),
    [(", in forward alone", {"output"}), ("", {"q.grad", "k.grad", "v.grad"})],
)
def test_it_is_named_where_one_way_alone_reads_it_otherwise(case, ending, names):
    right, wrong = (kernel(case, np.float32(mask)) for mask in (np.tri(5), np.tri(5, 5, 1)))
    found = case.diagnose(right | {name: wrong[name] for name in names})
    assert found.sure
    start = "" if ending else "gradient: "
    assert found[0].name == f"{start}mask one place late along its last axis{ending}"


def test_a_mask_that_ends_one_place_early_is_named():
    case = golden(CausalHead(8), batch=2, height=4, width=6, dtype="float32")
    assert "one place early" in str(case.diagnose(kernel(case, np.tri(4, 6, 1, dtype=np.float32))))


def test_what_would_change_nothing_does_not_apply():
    def applies(mask):
        given = CausalHead(8), {}, {"q": np.ones((2, 5, 8)), "mask": mask}, {}
        return {one.name for one in own_masks.ADDED if one.way == "carried" and one.when(*given)}

    assert applies(np.ones((5, 5))) == {"mask turned over, 0 for 1", "mask one place early along its last axis"}
    assert "mask transposed" not in applies(np.eye(5))
    assert "mask of the first image for all" in applies(np.stack([np.tri(5), np.ones((5, 5))]))
    assert applies(np.full((5, 5), 0.5)) == set()
