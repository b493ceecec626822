import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import EfficientChannelAttention, Module, Pass, SqueezeExcitation, fitting
from npattn.module import as_tuple
from npattn.oracle import generic_values
from npattn.parameters import ones
from tests.foreign_arrays import OnlyDLPack
from tests.naming import case, for_each
from tests.strategies import CHARACTERS, SYSTEMS

every_system = for_each("system", SYSTEMS)
WITH_PARAMETERS = [system for system in SYSTEMS if system.example().parameter_shapes()]
every_system_with_parameters = for_each("system", WITH_PARAMETERS)
every_system_on_maps = for_each(
    "system", [system for system in SYSTEMS if system is not npattn.ScaledDotProductAttention]
)
# The others' upstream gradients are refused as those of `Swap` are.
every_system_of_one_output = for_each(
    "system", [system for system in SYSTEMS if system is not npattn.DualAttentionHead]
)

# A checkpoint is read alike for all systems; of these the arrays have every number of axes, and there are buffers.
systems_of_all_ranks = pytest.mark.parametrize(
    "system",
    [EfficientChannelAttention, npattn.MultiHeadSelfAttention, npattn.DualAttentionHead],
    ids=lambda system: system.key,
)


@pytest.fixture(scope="module", autouse=True)
def systems_are_varied_once():
    """Keep what is tried in search of other hyperparameters: for each message about a system it is the same."""
    with pytest.MonkeyPatch.context() as patch:
        for function in (fitting.declared, fitting.vary):
            patch.setattr(fitting, function.__name__, functools.lru_cache(2**14, typed=True)(function))
        yield


@contextlib.contextmanager
def refused(error, *words):
    """Expect an exception of exactly this type whose one line holds all the words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert caught.type is error
    assert "\n" not in message
    for word in words:
        assert word in message, message


@dataclass(frozen=True)
class Swap(Module):
    """Two inputs, two outputs, one parameter: what the systems of the catalogue lack."""

    channels: int

    @classmethod
    def example(cls):
        return cls(channels=3)

    def input_shapes(self, batch, height, width):
        return {"x": (batch, self.channels, height, width), "guide": (batch, self.channels)}

    def parameters(self):
        return {"scale": ones(self.channels)}

    def forward(self, params, x, guide):
        scale = params["scale"]

        def backward(dy):
            d_guide, dx = dy
            return (dx, d_guide * scale), {"scale": (d_guide * guide).sum(axis=0)}

        return Pass((guide * scale, x * 1), backward)


@functools.cache  # nothing that is given is written to
def arguments(system, **options):
    """Make a module with generic parameters, its first input, and a call that takes another first input."""
    module = system.example()
    params, inputs = generic_values(module, **options)
    x, *rest = inputs.values()

    def call(first, params=params):
        others = rest
        if isinstance(first, np.ndarray) and first.ndim and first.dtype.kind in "fc":
            others = [other[: len(first)].astype(first.dtype) for other in rest]  # they follow the first
        return module(params, first, *others)

    return module, params, x, call


def one_of_each_shape(params):
    """Parameters by name, of those that are shaped alike the last: what is said of it is said of all."""
    return list({value.shape: (name, value) for name, value in params.items()}.values())


def first_of(module):
    """The name of a module's first input."""
    return next(iter(module.input_shapes(1, 1, 1)))


def with_fixed_channels(system):
    """Make a module, one of its inputs whose channels it prescribes, the name of it, and a call that takes another."""
    module = system.example()
    params, inputs = generic_values(module)
    name = next(name for name, x in inputs.items() if x.shape[1] == module.channels)
    return module, name, inputs[name], lambda x: module(params, *(inputs | {name: x}).values())


# The input


@every_system_on_maps
def test_wrong_rank_is_told_with_the_axes_that_are_expected(system):
    module, _, x, call = arguments(system)
    for wrong in (x[0], x[0, 0], x[None], x[0, 0, 0, 0, None]):
        with refused(
            ValueError,
            f"{module}: {first_of(module)} has shape {wrong.shape}",
            "expected 4 axes",
            "(batch, channels, height, width)",
        ):
            call(wrong)


@every_system
def test_single_image_is_told_how_to_get_a_batch_axis(system):
    module, _, x, call = arguments(system)
    hint = f"a single image needs a batch axis: {first_of(module)}[None]"
    with refused(ValueError, hint):
        call(x[0])
    call(x[0][None])
    with pytest.raises(ValueError, match="has shape") as caught:
        call(x[0, 0])
    assert hint not in str(caught.value)


@every_system_on_maps
def test_wrong_number_of_channels_is_told_with_both_numbers(system):
    module, name, x, call = with_fixed_channels(system)
    given = x[:, 1:]
    with refused(
        ValueError,
        f"{module}: {name} has shape {given.shape}; expected {x.shape}",
        f"the map has {module.channels - 1} channels, the module {module.channels}",
    ):
        call(given)


@every_system_on_maps
def test_channels_that_stand_last_are_recognised(system):
    _, name, x, call = with_fixed_channels(system)
    last = x.transpose(0, 2, 3, 1)
    with refused(ValueError, f"{name} has shape {last.shape}", "channels stand last", f"{name}.transpose(0, 3, 1, 2)"):
        call(last)
    np.testing.assert_array_equal(as_tuple(call(last.transpose(0, 3, 1, 2)).output)[0], as_tuple(call(x).output)[0])


@every_system
def test_numbers_in_another_byte_order_are_told_to_convert(system):
    module, params, x, call = arguments(system)
    order = x.dtype.newbyteorder()
    swapped = {name: value.astype(order) for name, value in params.items()}
    with refused(TypeError, f"{module}: {first_of(module)} has dtype {order.str}", ".astype('float64') makes it that"):
        call(x.astype(order), swapped)


@every_system
def test_input_without_floating_point_is_told_to_convert(system):
    module, _, x, call = arguments(system)
    name = first_of(module)
    for dtype in ("int64", "uint8", "bool", "object", "U3", "M8[s]"):
        given = np.ones(x.shape, "int64").astype(dtype)
        with refused(TypeError, f"{module}: {name} has dtype {given.dtype}; expected floating point", "with .astype"):
            call(given)


@every_system_with_parameters
def test_dtypes_that_differ_are_told_with_the_name_of_the_parameter(system):
    module, params, x, call = arguments(system)
    first, named = next(iter(params)), first_of(module)
    with refused(TypeError, f"{module}: parameter {first!r} has dtype float64 but {named} has float32", ".astype"):
        call(x.astype(np.float32))
    for name, value in params.items():
        with refused(TypeError, f"{module}: parameter {name!r} has dtype float16 but {named} has float64", ".astype"):
            call(x, params | {name: value.astype(np.float16)})


NO_ARRAYS = {
    "a list": lambda x: x.tolist(),
    "a tuple": tuple,
    "a NoneType": lambda x: None,
    "a float": lambda x: 1.5,
    "a str": lambda x: "x.npy",
    "a dict": lambda x: {"x": x},
    "a memoryview": memoryview,
    "OnlyDLPack": OnlyDLPack,
}


@every_system
def test_what_is_no_array_is_told_by_its_type_and_how_to_make_one(system):
    module, params, x, call = arguments(system)
    for kind, make in NO_ARRAYS.items():
        with refused(
            TypeError, f"{module}: {first_of(module)} is a", kind, "expected an array", "numpy.asarray(...) makes one"
        ):
            call(make(x))
        for name in list(params)[-1:]:
            with refused(TypeError, f"{module}: parameter {name!r} is a", kind, "expected an array"):
                call(x, params | {name: make(params[name])})


@every_system
def test_torch_tensor_is_told_by_its_type_and_how_to_make_an_array(system):
    torch = pytest.importorskip("torch")
    module, params, x, call = arguments(system)
    named = first_of(module)
    with refused(TypeError, f"{module}: {named} is a torch.Tensor; expected an array", "numpy.asarray(...) makes one"):
        call(torch.tensor(x))
    for name in list(params)[:1]:
        with refused(TypeError, f"{module}: parameter {name!r} is a torch.Tensor; expected an array"):
            call(x, params | {name: torch.tensor(params[name])})
    run = call(np.asarray(torch.tensor(x)))
    several = isinstance(run.output, tuple)
    with refused(TypeError, f"{module}: dy{'[0]' * several} is a torch.Tensor; expected an array"):
        run.backward((torch.tensor(x),) * len(run.output) if several else torch.tensor(x))


@every_system
def test_wrong_number_of_inputs_is_told_with_the_names_expected(system):
    module, params, x, _ = arguments(system)
    names = list(module.input_shapes(1, 1, 1))
    for count in (len(names) - 1, len(names) + 1):
        with refused(TypeError, f"{module}: got {count} inputs; expected {len(names)}: {', '.join(names)}"):
            module(params, *[x] * count)


@every_system_on_maps
def test_map_without_positions_is_refused(system):
    module, _, x, call = arguments(system)
    name = first_of(module)
    for wrong in (x[:, :, :0], x[..., :0]):
        with refused(ValueError, f"{module}: {name} has shape {wrong.shape}; expected at least one position"):
            call(wrong)


@every_system
def test_empty_batch_gives_empty_output_and_zero_parameter_gradients(system):
    for dtype in (np.float32, np.float64):
        module, params, x, call = arguments(system, dtype=dtype)
        run = call(x[:0])
        dx, grads = run.backward(run.output)
        for whole, empty in zip(as_tuple(call(x).output), as_tuple(run.output), strict=True):
            assert (empty.shape, empty.dtype) == ((0, *whole.shape[1:]), dtype)
        assert (as_tuple(dx)[0].shape, as_tuple(dx)[0].dtype) == ((0, *x.shape[1:]), dtype)
        assert grads.keys() == params.keys() - module.buffer_shapes().keys()
        for name, grad in grads.items():
            assert grad.dtype == dtype
            np.testing.assert_array_equal(grad, np.zeros_like(params[name]))


@every_system
def test_not_a_number_and_infinity_pass_through_and_stay_in_their_image(system):
    _, _, x, call = arguments(system)
    undisturbed = as_tuple(call(x).output)

    def outputs(first):
        given = x.copy()
        given[0, 0, 0, 0] = first
        with np.errstate(all="ignore"):
            return as_tuple(call(given).output)

    for value in (np.nan, np.inf, -np.inf):
        for i, (output, expected) in enumerate(zip(outputs(value), undisturbed, strict=True)):
            with case(value):
                if np.isfinite(output[0]).all():  # a system may choose other positions: those that it would by 1e300
                    assert np.isinf(value)
                    np.testing.assert_array_equal(output, outputs(np.copysign(1e300, value))[i])
                np.testing.assert_array_equal(output[1:], expected[1:])


# The parameters


@every_system
def test_parameters_that_are_no_mapping_are_told_by_their_type(system):
    module, params, x, call = arguments(system)
    for wrong, kind in ((None, "a NoneType"), (list(params.values()), "a list"), (set(params), "a set")):
        with refused(TypeError, f"{module}: params is {kind}; expected a mapping of names to arrays, as init() gives"):
            call(x, wrong)


@every_system
def test_missing_parameter_is_named_with_its_shape(system):
    module, params, x, call = arguments(system)
    for name, value in one_of_each_shape(params):
        with refused(ValueError, f"{module}: missing parameter {name!r} of shape {value.shape}"):
            call(x, {other: params[other] for other in params if other != name})


@every_system
def test_unknown_parameter_is_named_beside_the_valid_ones(system):
    module, params, x, call = arguments(system)
    name = ("zzz", "", 3, None)[SYSTEMS.index(system) % 4]
    with refused(ValueError, f"{module}: unknown parameter {name!r} (expected {', '.join(params) or 'none'})"):
        call(x, params | {name: x})


@every_system
def test_misspelt_parameter_is_told_the_one_it_stands_for(system):
    module, params, x, call = arguments(system)
    for place, (name, _) in enumerate(one_of_each_shape(params)):
        wrongs = [wrong for wrong in (name + "s", name.title(), name.replace("igh", "ihg")) if wrong != name]
        wrong = wrongs[place % len(wrongs)]
        misspelt = {wrong if other == name else other: value for other, value in params.items()}
        with refused(ValueError, f"{module}: unknown parameter {wrong!r}; did you mean {name!r}?"):
            call(x, misspelt)


@every_system
def test_misshapen_parameter_is_told_with_both_shapes(system):
    module, params, x, call = arguments(system)
    for place, (name, value) in enumerate(params.items(), SYSTEMS.index(system)):
        others = [value[None], value[:-1], value.ravel()[:1], np.array(1.0)]
        wrongs = [wrong for wrong in others if wrong.shape != value.shape]
        wrong = wrongs[place % len(wrongs)]
        with refused(ValueError, f"{module}: parameter {name!r} has shape {wrong.shape}; expected {value.shape}"):
            call(x, params | {name: wrong})


def test_misshapen_parameter_is_told_the_one_whose_shape_it_has():
    module, params, x, call = arguments(SqueezeExcitation)
    first, second = params["fc1.weight"], params["fc2.weight"]
    for wrong in ({"fc1.weight": second}, {"fc1.weight": second, "fc2.weight": first}):
        with refused(ValueError, f"expected {first.shape}; it has the shape of 'fc2.weight'"):
            call(x, params | wrong)
        with refused(ValueError, f"expected {first.shape}; it has the shape of 'se.fc2.weight'"):
            module.from_state_dict({f"se.{name}": value for name, value in (params | wrong).items()}, "se.")


@every_system
def test_parameter_without_floating_point_is_told_its_dtype(system):
    module, params, x, call = arguments(system)
    for name, value in params.items():
        with refused(TypeError, f"{module}: parameter {name!r} has dtype int32; expected floating point"):
            call(x, params | {name: value.astype(np.int32)})


# The upstream gradient


@every_system_of_one_output
def test_upstream_gradient_of_another_shape_is_told_with_both_shapes(system):
    module, _, x, call = arguments(system)
    run = call(x)
    for wrong in (run.output[:1], run.output[0], run.output[..., None], np.ones(1), np.array(1.0)):
        with refused(ValueError, f"{module}: dy has shape {wrong.shape}; expected the output's, {run.output.shape}"):
            run.backward(wrong)


@every_system_of_one_output
def test_upstream_gradient_of_another_kind_is_refused(system):
    module, _, x, call = arguments(system)
    run = call(x)
    y = run.output
    for wrong, *words in (
        (y.astype(np.float32), "dy has dtype float32 but the output has float64", "expected one dtype"),
        (y.astype(np.complex128), "dy has dtype complex128 but the output has float64"),
        (y.astype(int), "dy has dtype int64; expected floating point"),
        (y.tolist(), "dy is a list; expected an array"),
        ([y], "dy is a list; expected an array"),
        (None, "dy is a NoneType; expected an array"),
        (1.0, "dy is a float; expected an array"),
    ):
        with refused(TypeError, f"{module}: ", *words):
            run.backward(wrong)


@every_system_of_one_output
def test_tuple_of_upstream_gradients_is_refused_where_there_is_one_output(system):
    module, _, x, call = arguments(system)
    run = call(x)
    for count in (0, 1, 2):
        with refused(ValueError, f"{module}: dy is a tuple of {count}; expected one array, as the output"):
            run.backward((run.output,) * count)


def test_second_input_is_checked_under_its_own_name():
    module, params, x, _ = arguments(Swap)
    guide = np.ones((2, 3))
    module(params, x, guide)
    for bad, error, words in (
        (guide[:1], ValueError, "guide has shape (1, 3); expected (2, 3)"),
        (guide[..., None], ValueError, "guide has shape (2, 3, 1); expected (2, 3)"),
        (guide.astype(int), TypeError, "guide has dtype int64; expected floating point"),
        (guide.astype(np.float32), TypeError, "guide has dtype float32 but x has float64"),
        (guide.tolist(), TypeError, "guide is a list; expected an array"),
    ):
        with refused(error, f"{module}: {words}"):
            module(params, x, bad)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_upstream_gradients_is_told(count):
    module, _, x, call = arguments(Swap)
    run = call(x)
    with refused(ValueError, f"{module}: dy is a tuple of {count}; expected a tuple of 2, as the output"):
        run.backward((x,) * count)


def test_upstream_gradients_of_several_outputs_are_checked_one_by_one():
    module, _, x, call = arguments(Swap)
    run = call(x)
    first, second = run.output
    with refused(ValueError, f"{module}: dy is one array; expected a tuple of 2, as the output"):
        run.backward(second)
    with refused(ValueError, f"{module}: dy[0] has shape {second.shape}; expected the output's, {first.shape}"):
        run.backward((second, first))
    with refused(ValueError, f"{module}: dy[1] has shape {second[:1].shape}; expected the output's, {second.shape}"):
        run.backward((first, second[:1]))
    with refused(TypeError, f"{module}: dy[1] is a NoneType; expected an array"):
        run.backward((first, None))


ANY_ARRAY = st.builds(
    lambda shape, dtype: np.ones(shape, "int8").astype(dtype),
    st.sampled_from([(2, 32, 5, 4), (1, 1, 3), (4, 32, 1, 1)])
    | st.lists(st.sampled_from([0, 1, 3, 4]), max_size=6).map(tuple),
    st.sampled_from(["?", "i8", "f2", ">f4", "f8", "g", "F", "D", "O", "U4", "S3", "M8[s]", "m8[s]", "i4,f8"]),
)
ANYTHING = (
    ANY_ARRAY | st.none() | st.booleans() | st.floats() | st.text(CHARACTERS) | st.binary() | st.lists(st.floats())
)


@given(st.sampled_from(WITH_PARAMETERS), ANYTHING, st.sampled_from(["x", "params", "a parameter", "dy", "checkpoint"]))
def test_nothing_that_is_passed_fails_in_more_than_one_line(system, value, place):
    module, params, x, call = arguments(system)
    name = next(iter(params), "weight")
    calls = {
        "x": lambda: call(value),
        "params": lambda: call(x, value),
        "a parameter": lambda: call(x, params | {name: value}),
        "dy": lambda: call(x).backward(value),
        "checkpoint": lambda: module.from_state_dict(params | {name: value}),
    }
    try:
        calls[place]()
    except (TypeError, ValueError) as error:
        assert str(error).startswith(str(module))
        assert "\n" not in str(error)
        assert "; expected " in str(error)
    else:
        assert value.dtype == np.float64 or (place == "checkpoint" and np.issubdtype(value.dtype, np.inexact))
        if place == "x":
            assert (value.ndim, value.shape[1]) == (4, module.channels)
            assert 0 not in value.shape[2:]
        else:
            assert value.shape == (x if place == "dy" else params[name]).shape


# Hyperparameters


INTEGERS = [(SqueezeExcitation, "reduction"), (EfficientChannelAttention, "kernel_size")]
FIRST = {system: next(iter(inspect.signature(system).parameters)) for system in SYSTEMS}
INTEGERS += [(system, name) for system, name in FIRST.items() if type(getattr(system.example(), name)) is int]


@for_each(("system", "name"), INTEGERS)
def test_hyperparameter_below_1_is_refused(system, name):
    for value in (0, -1, np.int64(0), -(10**30)):
        with refused(ValueError, f"{system.__name__}: {name}={value!r}; expected an integer of at least 1"):
            dataclasses.replace(system.example(), **{name: value})


@for_each(("system", "name"), INTEGERS)
def test_hyperparameter_that_is_no_integer_is_refused(system, name):
    for value, kind in (
        (1.5, "float"),
        (8.0, "float"),
        ("8", "str"),
        (True, "bool"),
        (None, "NoneType"),
        ([8], "list"),
        (np.ones(1), "numpy.ndarray"),
    ):
        if name == "kernel_size" and value is None:  # which asks for the adaptive choice
            assert system(channels=8, kernel_size=None).num_taps == 3
            continue
        with refused(TypeError, f"{system.__name__}: {name}={value!r} is a ", kind, "; expected an int"):
            dataclasses.replace(system.example(), **{name: value})


@for_each("value", [0, 1, None, "yes", np.True_])
def test_bias_that_is_neither_true_nor_false_is_refused(value):
    with refused(TypeError, f"SqueezeExcitation: bias={value!r} is a", "expected True or False"):
        SqueezeExcitation(channels=8, bias=value)


@given(st.integers(1, 10**6))
def test_even_kernel_is_told_its_odd_neighbours(half):
    with refused(ValueError, f"kernel_size={2 * half}; expected an odd number", f": {2 * half - 1} or {2 * half + 1}"):
        EfficientChannelAttention(channels=8, kernel_size=2 * half)
    assert EfficientChannelAttention(channels=8, kernel_size=2 * half + 1).num_taps == 2 * half + 1


@pytest.mark.parametrize("name", ["gamma", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_slope_or_offset_that_is_not_finite_is_refused(name, value):
    with refused(ValueError, f"EfficientChannelAttention: {name}={value!r}; expected a finite number"):
        EfficientChannelAttention(channels=8, **{name: value})


@pytest.mark.parametrize("name", ["gamma", "b"])
@pytest.mark.parametrize(("value", "kind"), [("2", "str"), (None, "NoneType"), (True, "bool"), (2j, "complex")])
def test_slope_or_offset_that_is_no_number_is_refused(name, value, kind):
    with refused(TypeError, f"EfficientChannelAttention: {name}={value!r} is a {kind}; expected a number"):
        EfficientChannelAttention(channels=8, **{name: value})


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_slope_of_zero_is_refused(value):
    with refused(ValueError, f"EfficientChannelAttention: gamma={value}; expected a number other than 0"):
        EfficientChannelAttention(channels=8, gamma=value)


@every_system
def test_hyperparameters_cannot_be_changed_afterwards(system):
    module = system.example()
    for field in dataclasses.fields(system):
        before = getattr(module, field.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(module, field.name, 8)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(module, field.name)
        assert getattr(module, field.name) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.weight = np.ones(3)


@every_system
def test_unknown_hyperparameter_is_refused_by_name(system):
    name, expected = system.__name__, ", ".join(field.name for field in dataclasses.fields(system))
    with refused(TypeError, f"{name}: unknown hyperparameter 'colour' (expected {expected})"):
        system(colour=2)
    with refused(TypeError, f"{name}: missing hyperparameter", f" {FIRST[system]!r}", f"(expected {expected})"):
        system()
    with refused(TypeError, f"{name}: got 20 hyperparameters by position; expected at most ", FIRST[system]):
        system(*range(20))
    with refused(TypeError, f"{name}: got {FIRST[system]!r} twice, by position and by name"):
        system(1, **{FIRST[system]: 1})
    for field in dataclasses.fields(system):
        with refused(TypeError, f"{name}: unknown hyperparameter '{field.name}_'; did you mean '{field.name}'?"):
            dataclasses.replace(system.example(), **{f"{field.name}_": 1})


MEANT = {
    "channels": "in_channels in_planes inplanes planes dim in_dim embed_dim num_channels gate_channels c inp channel",
    "in_channels": "channels in_planes inplanes dim num_channels inp",
    "out_channels": "out out_planes oup dim_out",
    "reduction": "ratio r rd_ratio squeeze reduction_ratio reduction_rate Ratio",
    "hidden": "rd_channels squeeze_channels hidden_channels mid_channels inter_channels F_int",
    "gating_channels": "F_g g_channels gate_channels",
    "recurrence": "recurrences num_iter loops",
    "form": "arrangement",
    "activation": "act_layer act nonlinearity",
    "gate": "gate_layer scale_activation",
    "kernel_size": "k k_size kernel ks window_size",
    "kernel_sizes": "kernel_size kernel",
    "dilated": "keep_3x3",
    "fuse": "fusion_types fuse_add",
    "attention": "use_attn pooling_type",
    "eps": "epsilon",
    "subsample": "sub_sample",
    "maps": "c_n",
    "key_channels": "d_k",
    "value_channels": "d_v",
    "value_dim": "value_channels",
    "memory": "memory_units s",
    "scale": "use_scale",
    "groups": "num_groups n_groups g factor",
    "head_dim": "dim_head",
    "qk_ratio": "attn_ratio",
    "feat_size": "feature_size image_size size",
    "heads": "num_heads n_heads nhead num_attention_heads",
    "classes": "num_classes nclass n_classes num_labels out_channels",
    "rates": "dilations atrous_rates dilation",
    "mlp": "use_mlp",
    "dilation": "rate dilation_val",
    "bias": "use_bias with_bias has_bias qkv_bias",
    "batch_norm": "bn norm use_bn norm_layer batchnorm",
    "spatial": "no_spatial use_spatial spatial_attention",
    "pools": "pool_types pooling pool_type",
    "variant": "mode kind version",
    "training": "is_training train",
    "dropout": "p drop drop_rate dropout_rate",
    "window": "window_size patch_size kernel_size",
    "stride": "strides step",
    "embedding": "embedding_dim embed hidden_channels embed_dim",
    "inner": "module block layer fn",
    "k": "top_k topk n num_samples",
    "b": "beta",
    "size": "image_size out_size",
}


@every_system
def test_hyperparameter_under_a_name_of_published_code_is_told_the_one_it_stands_for(system):
    names = [field.name for field in dataclasses.fields(system)]
    for field in names:
        for other in MEANT.get(field, "").split():
            if other not in names and not any(other in MEANT.get(name, "").split() for name in names if name != field):
                with refused(
                    TypeError, f"{system.__name__}: unknown hyperparameter {other!r}; did you mean {field!r}? (expected"
                ):
                    system(**{other: 2})


@pytest.mark.parametrize("system", [SqueezeExcitation, npattn.CBAM])
@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("activation", "swish", "silu"),
        ("activation", "hardswish", "hard_swish"),
        ("activation", "ReLU", "relu"),
        ("activation", "GELU", "gelu"),
        ("activation", "LeakyReLU", "leaky_relu"),
        ("activation", "lrelu", "leaky_relu"),
        ("gate", "hsigmoid", "hard_sigmoid"),
        ("gate", "logistic", "sigmoid"),
    ],
)
def test_an_activation_under_another_name_is_told_the_one_it_stands_for(system, name, value, meant):
    with refused(ValueError, f"{system.__name__}: {name}={value!r}; did you mean {meant!r}? (expected "):
        system(8, **{name: value})


@pytest.mark.parametrize("system", [SqueezeExcitation, npattn.CBAM])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", "gelu_tanh"),
        ("activation", "QuickGELU"),
        ("activation", "relu6"),
        ("activation", "RReLU"),
        ("gate", "GELU"),
        ("gate", "LeakyReLU"),
        ("activation", "hard_sigmoid"),
        ("gate", "hardswish"),
        ("gate", "logsigmoid"),
    ],
)
def test_an_activation_that_is_another_one_is_not_taken_for_a_misspelling(system, name, value):
    with refused(ValueError, f"{system.__name__}: {name}={value!r} (expected "):
        system(8, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("activation", "relo", "relu"), ("activation", "hard_swsh", "hard_swish"), ("gate", "sigmod", "sigmoid")],
)
def test_a_misspelt_activation_is_told_the_nearest(name, value, meant):
    with refused(ValueError, f"{name}={value!r}; did you mean {meant!r}? (expected "):
        SqueezeExcitation(8, **{name: value})


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (npattn.SplitAttention, "padding"),
        (npattn.DoubleAttention, "reconstruct"),
        (npattn.PolarizedSelfAttention, "stride"),
        (npattn.HaloAttention, "feat_size"),
        (npattn.EfficientChannelAttention, "rd_channels"),
        (npattn.EfficientChannelAttention, "r"),
        (SqueezeExcitation, "num_classes"),
    ],
)
def test_a_hyperparameter_that_a_system_lacks_is_not_taken_for_a_misspelling(system, name):
    with refused(TypeError, f"{system.__name__}: unknown hyperparameter {name!r} (expected "):
        system(16, **{name: 2})


def test_a_name_that_stands_for_a_hyperparameter_in_one_system_alone_is_told_it_there():
    with refused(TypeError, "LambdaLayer: unknown hyperparameter 'r'; did you mean 'kernel_size'? (expected "):
        npattn.LambdaLayer(16, r=3)


def test_a_number_of_hidden_channels_is_told_the_reduction_where_no_number_is_taken():
    with refused(TypeError, "unknown hyperparameter 'squeeze_channels'; did you mean 'reduction'?"):
        npattn.FlexibleAttention(8, squeeze_channels=2)


@pytest.mark.parametrize("system", [npattn.CBAM, npattn.CBAMSpatialGate])
@pytest.mark.parametrize("value", [2, 8])
def test_an_even_kernel_of_a_map_is_told_its_odd_neighbours(system, value):
    with refused(ValueError, f"{system.__name__}: kernel_size={value}; expected an odd number", f": {value - 1} or"):
        system(8, kernel_size=value)


def test_hyperparameter_that_is_given_already_is_meant_last():
    with refused(TypeError, "unknown hyperparameter 'embed_dim'; did you mean 'channels' or 'embedding'?"):
        npattn.PixelCorrelation(embed_dim=4)
    with refused(TypeError, "unknown hyperparameter 'embed_dim'; did you mean 'embedding'?"):
        npattn.PixelCorrelation(16, embed_dim=4)
    with refused(TypeError, "unknown hyperparameter 'ratio'; did you mean 'reduction'?"):
        SqueezeExcitation(8, reduction=2, ratio=2)


@dataclass(frozen=True)
class Grouped(Swap):
    """A user's own hyperparameters, one of which only a name can give."""

    groups: int = dataclasses.field(default=1, kw_only=True)


class Undecorated(Swap):
    """A dataclass but for the decorator."""

    depth: int


class OwnConstructor(Swap):
    """What takes any name."""

    def __init__(self, channels, **others):
        super().__init__(channels)


def test_own_systems_are_told_of_their_own_hyperparameters():
    for call, words in (
        (lambda: Grouped(3, num_groups=2), "unknown hyperparameter 'num_groups'; did you mean 'groups'?"),
        (lambda: Grouped(dim=2), "unknown hyperparameter 'dim'; did you mean 'channels'? (expected channels, groups)"),
        (lambda: Grouped(3, 2), "got 2 hyperparameters by position; expected at most 1: channels"),
        (lambda: Grouped(groups=2), "missing hyperparameter 'channels' (expected channels, groups)"),
        (lambda: Undecorated(3, depth=2), "depth is declared, but Undecorated is no dataclass; put @dataclass"),
        (OwnConstructor, "missing hyperparameter 'channels' (expected channels)"),
    ):
        with refused(TypeError, words):
            call()
    with pytest.raises(TypeError) as caught:
        Grouped(dim=2)
    assert caught.value.__suppress_context__
    assert OwnConstructor(3, anything=4).channels == 3


def test_an_error_from_within_a_constructor_stays_what_it_is():
    @dataclass(frozen=True)
    class Failing(Swap):
        def __post_init__(self):
            raise TypeError("from within")

    with pytest.raises(TypeError, match=r"^from within$"):
        Failing(3)


@every_system
def test_a_systems_signature_lists_its_hyperparameters(system):
    assert list(inspect.signature(system).parameters) == [field.name for field in dataclasses.fields(system)]
    assert list(inspect.signature(system.example()).parameters) == ["params", "inputs"]


# Checkpoints


@every_system
def test_checkpoint_that_is_no_mapping_is_told_by_its_type(system):
    module = system.example()
    for value, kind in ((None, "NoneType"), ([], "list"), ("model.pth", "str")):
        with refused(TypeError, f"{module}.from_state_dict: got a {kind}; expected a mapping of names to arrays"):
            module.from_state_dict(value)


@every_system
def test_entry_that_a_checkpoint_lacks_is_named_with_its_shape(system):
    module, params, _, _ = arguments(system)
    for name, value in one_of_each_shape(params):
        with refused(ValueError, f"{module}.from_state_dict: missing", name, f"of shape {value.shape}"):
            module.from_state_dict({other: params[other] for other in params if other != name})


@every_system_with_parameters
def test_entry_that_a_checkpoint_has_too_many_is_named(system):
    module, params, x, _ = arguments(system)
    with refused(ValueError, f"{module}.from_state_dict: unknown", "'stray'", f"expected {', '.join(params)}"):
        module.from_state_dict(params | {"stray": x})
    name = list(params)[-1]
    misspelt = {other + "_" * (other == name): value for other, value in params.items()}
    with refused(ValueError, f"{module}.from_state_dict: unknown", f"'{name}_'", f"did you mean {name!r}?"):
        module.from_state_dict(misspelt)


@every_system
def test_misshapen_entry_of_a_checkpoint_is_told_with_both_shapes(system):
    module, params, _, _ = arguments(system)
    for prefix, (name, value) in itertools.product(["", "layer1.0."], one_of_each_shape(params)):
        checkpoint = {prefix + other: params[other] for other in params} | {prefix + name: value[None]}
        with refused(
            ValueError, f"{module}.from_state_dict: ", name, f"has shape {value[None].shape}; expected {value.shape}"
        ):
            module.from_state_dict(checkpoint, prefix)


@systems_of_all_ranks
@pytest.mark.parametrize("prefix", ["", "layer1.0."])
def test_entry_of_a_checkpoint_that_holds_no_floating_point_is_named(system, prefix):
    module, params, _, _ = arguments(system)
    name, value = list(params.items())[-1]
    for wrong, words in (
        (value.astype(int), "has dtype int64; expected floating point"),
        (value.astype(object), "has dtype object; expected floating point"),
        (value.tolist(), "is a list; expected an array or tensor"),
        (None, "is a NoneType; expected an array or tensor"),
        (OnlyDLPack(value.astype(int)), "has dtype int64; expected floating point"),
    ):
        checkpoint = {prefix + other: params[other] for other in params} | {prefix + name: wrong}
        with refused(TypeError, f"{module}.from_state_dict: ", prefix + name, words):
            module.from_state_dict(checkpoint, prefix)


@every_system_with_parameters
def test_integer_tensor_in_a_checkpoint_is_named(system):
    torch = pytest.importorskip("torch")
    module, params, _, _ = arguments(system)
    name = next(iter(params), "weight")
    with refused(TypeError, f"{module}.from_state_dict: ", name, "has dtype int64; expected floating point"):
        module.from_state_dict(params | {name: torch.ones(params[name].shape, dtype=torch.int64)})


@every_system
def test_prefix_selects_one_system_and_ignores_the_rest(system):
    module, params, x, _ = arguments(system)
    other = {name: value + 1 for name, value in params.items()}
    checkpoint = {f"layer1.0.{name}": value for name, value in params.items()}
    checkpoint |= {f"layer1.1.{name}": value for name, value in other.items()}
    checkpoint |= {"epoch": 90, "conv1.weight": x, "layer1": None, **other}
    np.testing.assert_equal(module.from_state_dict(checkpoint, prefix="layer1.0."), params)
    np.testing.assert_equal(module.from_state_dict(checkpoint, prefix="layer1.1."), other)


@every_system_with_parameters
def test_prefix_under_which_nothing_stands_is_refused(system):
    module, params, _, _ = arguments(system)
    checkpoint = {f"layer1.0.{name}": value for name, value in params.items()}
    first = next(iter(params))
    for prefix in ("layer2.", "layer1.0.se.", "ayer1.0."):
        with refused(
            ValueError,
            f"{module}.from_state_dict: missing parameter '{prefix}{first}' of shape {params[first].shape}",
            f": nothing stands under prefix='{prefix}'; prefix='layer1.0.' would fit",
        ):
            module.from_state_dict(checkpoint, prefix)
    for prefix in ("", "layer1.0", "l"):
        with refused(ValueError, f"unknown parameter 'layer1.0.{first}'; prefix='layer1.0.' would fit (expected"):
            module.from_state_dict(checkpoint, prefix)


def assert_taken(module, checkpoint, expected, dtype):
    """Check values, dtype, order, and that the arrays are the caller's own."""
    taken = module.from_state_dict(checkpoint)
    assert list(taken) == list(module.parameter_shapes() | module.buffer_shapes())
    for name, array in taken.items():
        assert type(array) is np.ndarray
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])
        array[...] = 7
    for name, array in module.from_state_dict(checkpoint).items():  # the source has not changed with the copies
        np.testing.assert_array_equal(array, expected[name])


LAID_OUT = {
    "plain": lambda a: a,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@systems_of_all_ranks
def test_arrays_of_any_layout_and_precision_are_copied_as_they_are(system):
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        module, params, _, _ = arguments(system, dtype=dtype)
        for layout, make in LAID_OUT.items():
            with case(layout, dtype):
                assert_taken(module, {name: make(value) for name, value in params.items()}, params, dtype)


@every_system
def test_masked_arrays_are_refused_by_name(system):
    module, params, x, call = arguments(system)
    with refused(TypeError, f"{first_of(module)} is a masked array", ".filled(...)"):
        call(np.ma.array(x))
    for name in list(params)[:1]:
        masked = params | {name: np.ma.array(params[name])}
        with refused(TypeError, f"parameter {name!r} is a masked array", ".filled(...)"):
            call(x, masked)
        with pytest.raises(TypeError, match=f"{re.escape(name)} is a masked array"):
            module.from_state_dict(masked)


@every_system
def test_entries_of_a_checkpoint_may_stand_in_any_order(system):
    module, params, _, _ = arguments(system)
    assert_taken(module, dict(reversed(params.items())), params, np.float64)


@systems_of_all_ranks
def test_arrays_that_speak_dlpack_alone_are_copied(system):
    for dtype in (np.float16, np.float32, np.float64):
        module, params, _, _ = arguments(system, dtype=dtype)
        with case(dtype):
            assert_taken(module, {name: OnlyDLPack(value) for name, value in params.items()}, params, dtype)


@systems_of_all_ranks
def test_tensors_of_torch_are_copied_and_bfloat16_is_widened_exactly(system):
    torch = pytest.importorskip("torch")
    module, params, _, _ = arguments(system)
    layouts = {
        "parameter": torch.nn.Parameter,
        "strided": lambda tensor: tensor.repeat_interleave(2, dim=-1)[..., ::2],
        "transposed": lambda tensor: tensor.movedim(-1, 0).contiguous().movedim(0, -1),
    }
    for kind in ("float16", "float32", "float64", "bfloat16"):
        tensors = {name: torch.tensor(value).to(getattr(torch, kind)) for name, value in params.items()}
        expected = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        for layout, make in layouts.items():
            with case(kind, layout):
                checkpoint = {name: make(tensor) for name, tensor in tensors.items()}
                assert_taken(module, checkpoint, expected, "float32" if kind == "bfloat16" else kind)


@every_system
def test_changing_the_tensors_later_does_not_reach_what_was_taken(system):
    torch = pytest.importorskip("torch")
    module, params, _, _ = arguments(system)
    tensors = {name: torch.tensor(value) for name, value in params.items()}
    taken = module.from_state_dict(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    np.testing.assert_equal(taken, params)


@every_system
def test_taken_parameters_run(system):
    module, params, x, call = arguments(system)
    np.testing.assert_array_equal(call(x, module.from_state_dict(params)).output, call(x).output)


def test_every_system_of_the_package_is_in_the_catalogue_and_so_in_these_tests():
    assert {system.__name__ for system in SYSTEMS} <= set(npattn.__all__)
    assert all(re.fullmatch(r"[a-z0-9-]+", system.key) for system in SYSTEMS)


def test_names_that_are_no_text_are_refused_as_unknown():
    module = EfficientChannelAttention(channels=8)
    with refused(ValueError, "unknown parameter '0'", "expected conv.weight"):
        module.from_state_dict({0: np.ones((1, 1, 3))})


def test_foreign_byte_order_is_turned_into_the_machines_own():
    module = EfficientChannelAttention(channels=8)
    swapped = np.ones((1, 1, 3), np.dtype(np.float32).newbyteorder())
    params = module.from_state_dict({"conv.weight": swapped})
    assert params["conv.weight"].dtype.isnative
    assert module(params, np.ones((1, 8, 2, 2), np.float32)).output.dtype == np.float32


@pytest.mark.parametrize(("gamma", "b"), [(1e-320, 1), (1e-20, 1), (2, 1e300)])
def test_slope_and_offset_that_make_an_endless_kernel_are_refused(gamma, b):
    with refused(ValueError, f"gamma={gamma}, b={b}; expected a kernel of at most a million taps"):
        EfficientChannelAttention(channels=8, gamma=gamma, b=b)


def test_a_message_stays_on_one_line_whatever_was_given():
    with refused(TypeError, "channels=array(", "is a numpy.ndarray; expected an int"):
        SqueezeExcitation(channels=np.ones((30, 2)))
