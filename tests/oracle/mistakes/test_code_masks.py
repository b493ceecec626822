"""Masks that a system of somebody's own makes in its code, by arithmetic with indices, read otherwise by a kernel."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from npattn import Module, Pass, ops
from npattn.fields import integer
from npattn.oracle import golden
from npattn.oracle.budgets import Given
from npattn.oracle.mistakes.code_masks import rules_of_masks
from npattn.oracle.mistakes.reading_masks import is_mask, readings_of
from tests.oracle.mistakes.searching import diagnosed
from tests.own_systems import RMSNorm

TOKENS = 7
ROWS, COLUMNS = np.ogrid[:TOKENS, :TOKENS]


@dataclass(frozen=True)
class Head(Module):
    """Attention with a mask that a subclass makes."""

    channels: int = integer(least=1, default=8)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys("qkv", (batch, width, self.channels))

    def output_shapes(self, batch, height, width):
        return {"output": (batch, width, self.channels)}

    def attend(self, q, k, v, mask):
        z = q @ k.swapaxes(-1, -2) / math.sqrt(self.channels)
        a, back_softmax = ops.softmax(np.where(mask, z, -1e4))

        def backward(dy):
            dz = back_softmax(dy @ v.swapaxes(-1, -2)) / math.sqrt(self.channels)
            return (dz @ k, dz.swapaxes(-1, -2) @ q, a.swapaxes(-1, -2) @ dy), {}

        return Pass(a @ v, backward)


@dataclass(frozen=True)
class Window(Head):
    def forward(self, params, q, k, v):
        d = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])
        mask = (d >= 0) & (d < 3)  # (1)
        return self.attend(q, k, v, mask)


@dataclass(frozen=True)
class Band(Head):
    def forward(self, params, q, k, v):
        i = np.arange(q.shape[1])
        return self.attend(q, k, v, np.abs(i[:, None] - i) <= 2)


@dataclass(frozen=True)
class Listed(Head):
    def forward(self, params, q, k, v):
        n = q.shape[1]
        keep = np.array([[j <= i for j in range(n)] for i in range(n)])
        return self.attend(q, k, v, keep)


@dataclass(frozen=True)
class Blocks(Head):
    def forward(self, params, q, k, v):
        idx = np.arange(q.shape[1])[None, :]
        mask = idx // 3 == idx.T // 3
        return self.attend(q, k, v, mask)


@dataclass(frozen=True)
class Looped(Head):
    def forward(self, params, q, k, v):
        mask = np.zeros(2 * q.shape[1:2], bool)
        for i in range(len(mask)):
            mask[i, max(0, i - 1) : i + 1] = True
            mask[i, 0] = True
        return self.attend(q, k, v, mask)


@dataclass(frozen=True)
class Decayed(Head):
    """No softmax: a product with a triangle, read in backward too."""

    def forward(self, params, q, k, v):
        m = np.tril(np.ones(2 * q.shape[1:2]), 1).astype(q.real.dtype)
        a = (q @ k.swapaxes(-1, -2)) * m

        def backward(dy):
            dz = (dy @ v.swapaxes(-1, -2)) * m
            return (dz @ k, dz.swapaxes(-1, -2) @ q, a.swapaxes(-1, -2) @ dy), {}

        return Pass(a @ v, backward)


CASES = {
    system: golden(system(), batch=2, width=TOKENS, dtype="float32", certify=False)
    for system in (Window, Band, Listed, Blocks, Looped, Decayed)
}
RIGHT = {
    Window: (ROWS >= COLUMNS) & (ROWS - COLUMNS < 3),
    Band: abs(ROWS - COLUMNS) <= 2,
    Listed: ROWS >= COLUMNS,
    Blocks: ROWS // 3 == COLUMNS // 3,
    Looped: (ROWS >= COLUMNS) & (ROWS - COLUMNS < 2) | (COLUMNS == 0),
    Decayed: ROWS - COLUMNS >= -1,
}


def kernel(case, mask, back=None, *, right_sums=False):
    """The head in float32: with a mask, another where its backward pass makes the weights again."""
    q, k, v, dy = (np.float32(a) for a in (*case.inputs.values(), *case.upstream.values()))
    back = mask if back is None else back
    if isinstance(case.module, Decayed):
        z = q @ k.swapaxes(1, 2)
        a, dz = z * back, (dy @ v.swapaxes(1, 2)) * back
        y = z * mask @ v
    else:
        scale = np.float32(case.module.channels**-0.5)
        e = np.exp(scale * q @ k.swapaxes(1, 2))
        total = (e * (mask if right_sums else back)).sum(axis=-1, keepdims=True)
        y = (e * mask) / (e * mask).sum(axis=-1, keepdims=True) @ v
        a = e * back / total
        da = dy @ v.swapaxes(1, 2)
        delta = dy * y if right_sums else a * da
        dz = scale * a * (da - delta.sum(axis=-1, keepdims=True))
    return {"output": y, "q.grad": dz @ k, "k.grad": dz.swapaxes(1, 2) @ q, "v.grad": a.swapaxes(1, 2) @ dy}


NAMED = [
    (Window, "(1) mask transposed", RIGHT[Window].T),
    (Band, "mask `np.abs(i[:, None] - i) <= 2` all 0 above its diagonal", RIGHT[Band] & (ROWS >= COLUMNS)),
    (Listed, "one place more: `j <= i + 1`", ROWS >= COLUMNS - 1),
    (Blocks, "blocks of one more: `idx // 4 == idx.T // 4`", ROWS // 4 == COLUMNS // 4),
    (Looped, "not written `mask[i, 0] = True`", (ROWS >= COLUMNS) & (ROWS - COLUMNS < 2)),
    (Decayed, "diagonal one further back: `np.tril(np.ones(2 * q.shape[1:2]), k=0)`", ROWS >= COLUMNS),
]


def names_in(found):
    """All that is said of the likeliest."""
    alike = found.suspects[: found.alike]
    return [one.name for one in alike] + [twin.name for one in alike for twin in one.twins]


@pytest.mark.parametrize("system", CASES)
def test_a_kernel_that_reads_the_mask_as_it_is_passes(system):
    assert CASES[system].compare(kernel(CASES[system], RIGHT[system])).passed


@pytest.mark.parametrize(("system", "words", "mask"), NAMED)
def test_a_mask_of_the_code_that_is_read_otherwise_is_named(system, words, mask):
    found = diagnosed(CASES[system], kernel(CASES[system], mask))
    assert found.sure
    assert any(words in name and "gradient" not in name for name in names_in(found)), names_in(found)


@pytest.mark.parametrize(("system", "words", "mask"), NAMED[2:3])
def test_it_is_named_where_it_is_read_otherwise_in_forward_alone(system, words, mask):
    case = CASES[system]
    found = diagnosed(case, kernel(case, RIGHT[system]) | {"output": kernel(case, mask)["output"]})
    assert found.sure
    assert found[0].name.endswith("alone")
    assert any(words in name for name in names_in(found)), names_in(found)


@pytest.mark.parametrize(("system", "words", "mask"), NAMED[3:4])
def test_it_is_named_where_it_is_read_otherwise_on_the_way_back_alone(system, words, mask):
    found = diagnosed(CASES[system], kernel(CASES[system], RIGHT[system], mask))
    assert found.sure
    name = words.replace("(1) ", "(1) gradient: ") if "(1)" in words else f"gradient: {words}"
    assert any(one.startswith(name) for one in names_in(found)), names_in(found)


@pytest.mark.parametrize(("system", "words", "mask"), NAMED[2:3])
def test_weights_that_backward_makes_again_by_the_right_logsumexp_are_told(system, words, mask):
    found = diagnosed(CASES[system], kernel(CASES[system], RIGHT[system], mask, right_sums=True))
    assert found.sure
    assert found[0].name.endswith("whose softmax is made again by the right logsumexp")
    assert words.removeprefix("(1) ") in found[0].name or words in str(found[0].twins)


def test_a_mask_that_backward_alone_reads_otherwise_in_its_own_lines_is_told():
    case = CASES[Decayed]
    wrong = kernel(case, RIGHT[Decayed], ROWS >= COLUMNS)
    found = diagnosed(case, kernel(case, RIGHT[Decayed]) | {name: wrong[name] for name in ("q.grad", "k.grad")})
    assert found.sure
    assert any(name.endswith("where backward reads it") for name in names_in(found)), names_in(found)


def test_other_words_for_the_same_mask_are_told_behind_the_first():
    text = " ".join(str(diagnosed(CASES[Window], kernel(CASES[Window], ROWS >= COLUMNS))).split())
    assert text.endswith(
        "(1) d < 3 left out: `d >= 0` for `(d >= 0) & (d < 3)`; here the same: (1) mask all 1 below its diagonal"
    )


def test_masks_are_looked_for_as_long_as_there_is_time():
    given = Given(CASES[Window].params, CASES[Window].inputs, CASES[Window].upstream)
    assert rules_of_masks(Window(), given)
    assert rules_of_masks(Window(), given, is_over=lambda: True) == []


def test_readings_of_a_mask_differ_from_it_and_from_each_other():
    for mask in (np.tri(4), np.tri(3, 5, 1) > 0, np.where(np.tri(4) > 0, 0, -np.inf), np.eye(3)):
        others = [mask, *(other for _, _, other in readings_of(mask))]
        assert len({other.tobytes() for other in others}) == len(others) > 6
        assert all(other.dtype == mask.dtype and set(other.flat) <= set(mask.flat) for other in others)


def test_numbers_that_are_no_mask_are_left_alone():
    for value in (np.ones((2, 2)), np.zeros((2, 2)), np.array([0, 1]), np.arange(4).reshape(2, 2), 1.0, np.eye(1)):
        assert not is_mask(value)


def test_what_is_made_of_an_input_or_stands_in_a_system_of_the_catalogue_is_no_mask_of_the_code():
    for module in (RMSNorm(4), Signs(4)):
        x = np.random.RandomState(0).standard_normal(next(iter(module.input_shapes(2, 3, 3).values())))
        assert rules_of_masks(module, Given({"weight": np.ones(4)}, {"x": x}, {"output": x})) == []


@dataclass(frozen=True)
class Signs(Head):
    """A rectifier."""

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height, width)}

    def forward(self, params, x):
        above = x.real > 0
        return Pass(np.where(above, x, 0), lambda dy: (np.where(above, dy, 0), {}))
