"""Golden cases on the caller's tensors."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import oracle
from npattn.oracle import FORMATS, golden
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.formats import representable
from npattn.oracle.rounding import Rounding
from npattn.oracle.tensors import Change, round_arrays
from tests.foreign_arrays import OnlyDLPack
from tests.naming import for_each
from tests.strategies import arrange, layouts

MODULE = npattn.EfficientChannelAttention(channels=4, kernel_size=3)
SHAPE = (2, 4, 3, 5)


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def plain(case):
    """The results of a plain kernel in the case's format."""
    return run_on(Rounding(case.format), case.module, Given(*case.arrays(np.float64)))


def same(one, other):
    for kind in ("inputs", "params", "upstream", "expected", "budget"):
        assert getattr(one, kind).keys() == getattr(other, kind).keys()
        for name, a in getattr(one, kind).items():
            np.testing.assert_array_equal(a, getattr(other, kind)[name])


@for_each("dtype", FORMATS)
def test_what_is_given_is_rounded_to_the_format_and_the_case_says_so(dtype):
    arrays = {"inputs": {"x": normal(*SHAPE)}, "params": {"conv.weight": normal(1, 1, 3)}}
    case = golden(MODULE, **arrays, upstream=normal(*SHAPE, seed=1), dtype=dtype)
    arrays["upstream"] = {"output": normal(*SHAPE, seed=1)}
    assert case.given == ("inputs", "params", "upstream")
    for group, named in arrays.items():
        for name, a in named.items():
            rounded = representable(a, FORMATS[dtype])
            np.testing.assert_array_equal(getattr(case, group)[name], rounded.astype(np.float32))
            change = case.rounded[f"{group}/{name}"]
            assert change == ((rounded != a).sum(), a.size, np.abs(rounded - a).max(), 0)
            text = f"{group}/{name} rounded in {change.changed} of {a.size} values by at most {change.largest:.2g}"
            for told in (repr(case), " ".join(str(case.compare(case.expected)).split())):
                assert text in told
                assert "given inputs and params and upstream" in told
    case.assert_matches(plain(case), require="all")


def test_what_the_format_holds_is_kept_to_the_last_bit_and_nothing_is_said():
    x = np.float32(np.float16(normal(*SHAPE)))
    case = golden(MODULE, inputs=x)
    assert case.rounded == {}
    assert case.given == ("inputs",)
    assert "rounded" not in repr(case)
    np.testing.assert_array_equal(case.inputs["x"], x)
    assert not np.shares_memory(case.inputs["x"], x)


@pytest.mark.parametrize("group", ["inputs", "params", "upstream"])
def test_what_is_left_out_is_drawn_as_ever(group):
    drawn = golden(MODULE, batch=2, height=3, width=5, seed=3)
    given = {other: getattr(drawn, other) for other in ("inputs", "params", "upstream") if other != group}
    case = golden(MODULE, batch=2, height=3, width=5, **given, seed=3)
    same(case, drawn)
    assert (case.given, drawn.given) == (tuple(given), ())
    one = golden(MODULE, batch=2, height=3, width=5, seed=3, **{group: getattr(drawn, group)})
    same(one, drawn)


@for_each("key", npattn.CATALOGUE)
@pytest.mark.usefixtures("without_budgets")
def test_every_system_takes_tensors_and_makes_of_them_what_it_makes_of_drawn_ones(key):
    recipe = oracle.cases(key, ["bfloat16"], shapes=[(2, 2, 4)], seed=5)[0]
    drawn = golden(recipe.module, batch=2, height=2, width=4, dtype="bfloat16", seed=5)
    given = {group: getattr(drawn, group) for group in ("inputs", "params", "upstream")}
    case = golden(recipe.module, **given, dtype="bfloat16", seed=5)
    same(case, drawn)
    assert case.rounded == {}


def test_arrays_of_any_library_and_layout_are_taken_as_they_come():
    torch = pytest.importorskip("torch")
    x, w, dy = np.float16(normal(*SHAPE)), np.float16(normal(1, 1, 3)), np.float16(normal(*SHAPE, seed=1))

    expected = golden(MODULE, inputs=x, params={"conv.weight": w}, upstream=dy)
    weights = torch.nn.Conv1d(1, 1, 3, bias=False).half().requires_grad_()
    weights.weight.data = torch.from_numpy(w)
    state = {f"conv.{name}": value for name, value in weights.state_dict().items()}
    last = torch.from_numpy(x).to(memory_format=torch.channels_last).requires_grad_()
    for one, other in [(last, torch.from_numpy(dy)), ((OnlyDLPack(x),), (dy[::-1][::-1],)), ({"x": x}, {"output": dy})]:
        same(golden(MODULE, inputs=one, params=state, upstream=other), expected)
    same(
        golden(MODULE, inputs=torch.from_numpy(x).bfloat16(), dtype="bf16"),
        golden(MODULE, inputs=representable(np.float64(x), FORMATS["bfloat16"]), dtype="bf16"),
    )


@given(layouts)
def test_the_callers_arrays_are_not_written_to(layout):
    x = arrange(normal(*SHAPE), layout)
    before = x.copy()
    golden(MODULE, inputs=x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("values", ["large", "ties", "zeros", "ones"])
def test_special_values_go_with_the_callers_parameters(values):
    w = np.float16(normal(1, 1, 3))
    case = golden(MODULE, batch=2, height=4, width=4, params={"conv.weight": w}, values=values)
    np.testing.assert_array_equal(case.params["conv.weight"], w)
    assert case.values == values
    drawn = golden(MODULE, batch=2, height=4, width=4, values=values)
    if values != "large":  # as large as the weights allow
        np.testing.assert_array_equal(case.inputs["x"], drawn.inputs["x"])
    case.assert_matches(plain(case), require="all")


def test_ones_go_with_the_callers_inputs():
    case = golden(MODULE, inputs=normal(*SHAPE), values="ones")
    assert (case.upstream["output"] == 1).all()


@pytest.mark.parametrize("layout", ["transposed", "sliced", "channels-last"])
def test_layouts_go_with_the_callers_tensors(layout):
    x = np.float16(normal(*SHAPE))
    case = golden(MODULE, inputs=x, layout=layout)
    np.testing.assert_array_equal(case.inputs["x"], x)
    assert not case.inputs["x"].flags.c_contiguous


def test_a_broadcast_layout_broadcasts_what_of_the_callers_does_not_change():
    x = np.broadcast_to(np.float16(normal(1, 4, 1, 5)), SHAPE)
    case = golden(MODULE, inputs=x, upstream=normal(*SHAPE), layout="broadcast")
    assert [stride == 0 for stride in case.inputs["x"].strides] == [True, False, True, False]
    assert all(case.upstream["output"].strides)
    with pytest.raises(ValueError, match="layout='broadcast', but inputs and upstream change along every axis"):
        golden(MODULE, inputs=normal(*SHAPE), upstream=normal(*SHAPE), layout="broadcast")
    with pytest.raises(ValueError, match="expected a batch of at least 2 to be drawn, or values='ones'"):
        golden(MODULE, layout="broadcast")


def test_inputs_whose_size_no_height_tells_give_outputs_as_large():
    module = npattn.CATALOGUE["pcm"].example()
    maps, features = normal(2, 7, 3, 4), normal(2, module.channels, 3, 4)
    case = golden(module, inputs=(maps, features), dtype="float32")
    assert case.expected["output"].shape == maps.shape
    case.assert_matches(named_results(module, case.arrays()), require="all")


def test_values_beyond_the_formats_range_become_infinite_or_its_largest_and_are_counted():
    values = np.array([1.0, 1e6, -1e6, np.inf, np.nan, 1.0 + 2.0**-12])
    half, e4m3 = (round_arrays({"x": values}, FORMATS[name]) for name in ("float16", "float8_e4m3"))
    np.testing.assert_array_equal(half[0]["x"], [1, np.inf, -np.inf, np.inf, np.nan, 1])
    np.testing.assert_array_equal(e4m3[0]["x"], [1, 448, -448, 448, np.nan, 1])
    assert half[1] == {"x": Change(3, 6, 2.0**-12, 2)}
    assert e4m3[1] == {"x": Change(4, 6, 2.0**-12, 3)}
    assert str(half[1]["x"]).endswith("2 of them beyond its range")


@given(st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from(list(FORMATS)))
def test_changes_count_what_the_format_does_not_hold(numbers, name):
    format, values = FORMATS[name], np.array(numbers)
    rounded, changes = round_arrays({"x": values}, format)
    held = representable(values, format) == values
    assert bool(changes) is not bool(held.all())
    if changes:
        change = changes["x"]
        assert change.changed == (~held).sum()
        within = ~held & (np.abs(values) <= format.largest)
        assert change.beyond == (~held).sum() - within.sum()
        assert change.largest == np.abs(rounded["x"] - values)[within].max(initial=0)


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed", "channels-last", "broadcast"])
def test_files_carry_the_callers_tensors_what_was_rounded_and_the_layout(layout, tmp_path):
    module = npattn.CATALOGUE["pcm"].example()
    maps, features = normal(2, 2, 3, 4), normal(2, module.channels, 3, 4)
    case = golden(module, inputs=(maps, features), values="ones", layout=layout)
    case.save(tmp_path / "case.npz")
    again = oracle.load(tmp_path / "case.npz")
    same(again, case)
    assert repr(again) == repr(case)
    assert (again.layout, again.given, again.rounded) == (layout, ("inputs",), case.rounded)
    assert set(case.rounded) == {"inputs/maps", "inputs/features"}
    for group in ("inputs", "upstream"):
        for name, a in getattr(case, group).items():
            assert getattr(again, group)[name].strides == a.strides
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "case.npz").read_bytes()


def test_an_empty_batch_is_saved_and_loaded(tmp_path):
    case = golden(MODULE, batch=0, height=2, width=3)
    case.save(tmp_path / "case.npz")
    same(oracle.load(tmp_path / "case.npz"), case)


X, DY = normal(*SHAPE), normal(*SHAPE)


@for_each(
    ("given", "error", "words"),
    [
        ({"inputs": X[:, :3]}, ValueError, "x has shape (2, 3, 3, 5); expected (2, 4, 3, 5); the map has 3 channels"),
        ({"inputs": X[0]}, ValueError, "a single image needs a batch axis"),
        ({"inputs": X.transpose(0, 2, 3, 1)}, ValueError, "the channels stand last"),
        ({"inputs": X.tolist()}, TypeError, "golden: inputs['x'] is a list; expected an array or tensor"),
        ({"inputs": X.astype(int)}, TypeError, "golden: inputs['x'] has dtype int64; expected floating point"),
        ({"inputs": X + 0j}, TypeError, "golden: inputs['x'] has dtype complex128; expected real numbers"),
        ({"inputs": (X, X)}, TypeError, "golden: inputs is a tuple of 2; expected a dict or tuple of 1: x"),
        ({"inputs": {"X": X}}, ValueError, "golden: inputs holds an unknown 'X'; did you mean 'x'? (expected x)"),
        ({"inputs": {}}, ValueError, "golden: inputs lacks 'x' (expected x)"),
        ({"inputs": np.ma.masked_array(X)}, TypeError, "inputs['x'] is a masked array"),
        ({"inputs": X, "batch": 3}, ValueError, "batch=3, but inputs are x of shape (2, 4, 3, 5), of batch 2: leave"),
        ({"inputs": X, "height": 5}, ValueError, "height=5, but inputs are x of shape (2, 4, 3, 5), of height 3"),
        ({"inputs": X, "width": 3}, ValueError, "width=3, but inputs are x of shape (2, 4, 3, 5), of width 5"),
        (
            {"inputs": X, "values": "ties"},
            ValueError,
            "values='ties' asks for inputs that are drawn, but inputs is given",
        ),
        ({"upstream": DY, "values": "ones"}, ValueError, "values='ones' asks for upstream that are drawn"),
        ({"params": {"conv.weight": np.ones((1, 1, 5))}}, ValueError, "conv.weight"),
        ({"params": {"weight": np.ones((1, 1, 3))}}, ValueError, "conv.weight"),
        ({"params": {"conv.weight": 1j * np.ones((1, 1, 3))}}, TypeError, "params['conv.weight'] has dtype complex128"),
        ({"params": X}, TypeError, "expected a mapping of names to arrays"),
        (
            {"inputs": X, "upstream": DY[:1]},
            ValueError,
            "upstream['output'] has shape (1, 4, 3, 5); expected the output's",
        ),
        ({"upstream": DY}, ValueError, "expected the output's, (1, 4, 16, 16): give the inputs that it belongs to, or"),
        ({"inputs": X, "upstream": {"y": DY}}, ValueError, "upstream holds an unknown 'y' (expected output)"),
        (
            {"inputs": X, "upstream": (DY, DY)},
            TypeError,
            "upstream is a tuple of 2; expected a dict or tuple of 1: output",
        ),
        ({"inputs": np.nan * X}, ValueError, "no kernel can be judged by it"),
        ({"layout": "nhwc"}, ValueError, "layout='nhwc'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_on_one_line(given, error, words):
    with pytest.raises(error) as caught:
        golden(MODULE, **given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_several_inputs_and_outputs_all_are_asked_for_by_name():
    module = npattn.HardAttention(channels=3)
    x = normal(2, 3, 3, 4)
    with pytest.raises(TypeError, match=r"inputs is a numpy.ndarray; expected a dict or tuple of 2: x, noise"):
        golden(module, inputs=x)
    with pytest.raises(ValueError, match=r"inputs lacks 'noise' \(expected x, noise\)"):
        golden(module, inputs={"x": x})
    drawn = golden(module, batch=2, height=3, width=4)
    case = golden(module, inputs={"noise": drawn.inputs["noise"], "x": drawn.inputs["x"]})
    assert list(case.inputs) == ["x", "noise"]
    same(case, drawn)


@dataclasses.dataclass(frozen=True)
class Doubled(npattn.Module):
    """A system that the catalogue doesn't know."""

    channels: int = 4

    @classmethod
    def example(cls):
        return cls()

    def forward(self, params, x):
        return npattn.Pass(2 * x, lambda dy: (2 * dy, {}))


@dataclasses.dataclass(frozen=True)
class Scaled(Doubled):
    """A system with two outputs, one of which is smaller."""

    def output_shapes(self, batch, height, width):
        x = self.input_shapes(batch, height, width)["x"]
        return {"output.0": x, "output.1": (1, *x[1:])}

    def forward(self, params, x):
        return npattn.Pass((2 * x, x[:1] * 3), lambda dy: (2 * dy[0] + 3 * np.pad(dy[1], [(0, 1), *3 * [(0, 0)]]), {}))


def test_upstream_gradients_of_several_outputs_are_given_in_order_or_by_name():
    small, large = normal(1, 4, 3, 5), normal(*SHAPE)
    with pytest.raises(TypeError, match=r"upstream is a numpy.ndarray; expected .* tuple of 2: output.0, output.1"):
        golden(Scaled(), inputs=X, upstream=large)
    with pytest.raises(ValueError, match=r"upstream lacks 'output.1'"):
        golden(Scaled(), inputs=X, upstream={"output.0": large})
    with pytest.raises(ValueError, match=r"unknown 'output': there are several: 'output.0', 'output.1' \(expected"):
        golden(Scaled(), inputs=X, upstream={"output": large})
    one = golden(Scaled(), inputs=X, upstream=(large, small))
    with pytest.raises(ValueError, match=r"unknown result 'output': there are several: 'output.0', 'output.1' \("):
        one.compare({"output": large})
    same(golden(Scaled(), inputs=X, upstream={"output.1": small, "output.0": large}), one)
    np.testing.assert_array_equal(one.upstream["output.1"], np.float32(np.float16(small)))


def test_a_system_of_ones_own_takes_ones_own_tensors():
    case = golden(Doubled(), inputs=X, params={}, upstream=DY)
    case.assert_matches({"output": 2 * case.inputs["x"], "x.grad": 2 * case.upstream["output"]}, require="all")


@dataclasses.dataclass(frozen=True)
class Attending(npattn.Module):
    """A system of tokens: queries, and another number of keys."""

    def input_shapes(self, batch, height, width):
        return {"q": (batch, height, 4), "k": (batch, width, 4)}

    def forward(self, params, q, k):
        total = k.sum(1, keepdims=True)

        def backward(dy):
            return (dy * total, np.repeat((q * dy).sum(1, keepdims=True), k.shape[1], axis=1)), {}

        return npattn.Pass(q * total, backward)


def test_of_inputs_that_are_no_maps_all_else_is_drawn_and_sizes_are_read_from_their_shapes():
    q, k = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    case = golden(Attending(), inputs=(q, k), certify=False)
    same(golden(Attending(), inputs=(q, k), batch=2, height=3, width=5, certify=False), case)
    with pytest.raises(ValueError, match=r"width=4, but inputs are q of shape \(2, 3, 4\), k of .*, of width 5: leave"):
        golden(Attending(), inputs=(q, k), width=4)
    attention = npattn.ScaledDotProductAttention(heads=1, head_dim=4)
    with pytest.raises(ValueError, match=r"width=4, but inputs are query of shape .*, of width 5"):
        golden(attention, inputs=(q[:, None], k[:, None], k[:, None]), width=4)


def test_a_length_that_the_kernels_format_does_not_hold_is_handed_over_exactly_or_refused():
    torch = pytest.importorskip("torch")
    key = np.ones((2, 1, 301, 4))
    module = npattn.ScaledDotProductAttention(1, head_dim=4, lengths=True)
    inputs = {"query": key[:, :, :1], "key": key, "value": key, "lengths": np.array([300, 299])}
    case = golden(module, inputs=inputs, dtype="bfloat16", certify=False)

    def convert(a):
        return torch.tensor(a, dtype=torch.bfloat16, requires_grad=True)

    with pytest.raises(ValueError, match=r"lengths has 299 at \[1\], of which convert makes 300: say by exact="):
        case.arrays(convert)
    handed = case.arrays(convert, exact=torch.tensor).inputs
    assert list(handed) == list(inputs)
    assert handed["lengths"].tolist() == [300, 299]
    assert handed["key"].dtype == torch.bfloat16
    with pytest.raises(TypeError, match="arrays: exact is an int; expected a function"):
        case.arrays(exact=3)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32])
def test_masks_and_lengths_may_be_of_any_dtype_and_are_never_rounded(dtype):
    query, key = np.ones((2, 1, 1, 4)), np.random.RandomState(0).standard_normal((2, 1, 301, 4))
    mask = np.random.RandomState(1).randint(0, 2, (1, 1, 1, 301)).astype(dtype)
    module = npattn.ScaledDotProductAttention(1, head_dim=4, causal=None, mask=True, lengths=True)
    inputs = {"query": query, "key": key, "value": key, "mask": mask, "lengths": np.array([301, 299])}
    case = golden(module, inputs=inputs, dtype="bfloat16", certify=False)
    np.testing.assert_array_equal(case.inputs["lengths"], [301, 299])  # neither is a number of bfloat16
    np.testing.assert_array_equal(case.inputs["mask"], mask)
    assert not {"inputs/lengths", "inputs/mask"} & case.rounded.keys()
    with pytest.raises(TypeError, match=r"inputs\['query'\] has dtype int64; expected floating point"):
        golden(module, inputs=inputs | {"query": query.astype(int)}, dtype="bfloat16")


def test_whole_numbers_that_have_a_gradient_are_rounded_as_others_are(without_budgets):
    module = npattn.EfficientChannelAttention(channels=4)
    x = 257.0 + 2 * np.arange(16).reshape(1, 4, 2, 2)
    case = golden(module, inputs=x, dtype="bfloat16", certify=False)
    np.testing.assert_array_equal(case.inputs["x"], representable(x, FORMATS["bfloat16"]))
    assert case.rounded["inputs/x"].changed == 16
