import inspect
import re
import sys
from dataclasses import MISSING, dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest

import npattn
from npattn import Module, Pass, oracle
from npattn.oracle import special as special_inputs
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.cases import KINDS
from npattn.oracle.formats import representable
from npattn.oracle.rounding import Rounding
from npattn.oracle.special import special
from npattn.oracle.sweeps import OPTIONS, write_label
from tests.naming import for_each
from tests.strategies import SYSTEMS, small_example

every_system = for_each("system", SYSTEMS)
TURNS = SYSTEMS[::2], SYSTEMS[1::2]
"""Systems that take turns where cases are made of them, which takes most of the time."""


@dataclass(frozen=True)
class Doubled(Module):
    """A system that the catalogue doesn't know."""

    channels: int = 3

    @classmethod
    def example(cls):
        return cls()

    def forward(self, params, x):
        return Pass(2 * x, lambda dy: (2 * dy, {}))


def nearest(case):
    """The results of a plain kernel in the case's format."""
    return run_on(Rounding(case.format), case.module, Given(case.params, case.inputs, case.upstream))


def run_all(recipes):
    """Run each module on its map; of recipes that differ in values or layouts alone, one speaks for all."""
    for module, batch, height, width in dict.fromkeys((r.module, r.batch, r.height, r.width) for r in recipes):
        params, inputs = oracle.generic_values(module, batch=batch, height=height, width=width, dtype="float32")
        module(params, *inputs.values())


def find(key, words, dtype="float16"):
    """The one case whose id ends in the words."""
    (recipe,) = [recipe for recipe in oracle.cases(key, [dtype]) if recipe.id.endswith(words)]
    return recipe.make()


@for_each("system", TURNS[0])
def test_a_correct_kernel_passes_and_every_element_is_judged(system):
    for recipe in oracle.cases(system, ["float16"], limit=1):
        case = recipe.make()
        assert all(np.isfinite(budget).all() for budget in case.budget.values()), recipe
        report = case.compare(nearest(case))
        assert report.passed, f"{recipe}: {report}"


@every_system
def test_ids_are_unique_and_can_be_selected_by_pytest(system):
    ids = [recipe.id for recipe in oracle.cases(system)]
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[\w-]+", name)
        assert name.startswith(system.key)


OF_OTHER_SIZES = {"sdpa", "halo"}
"""Systems whose sizes are others: of queries and keys, or whole blocks."""


@for_each("system", [s for s in SYSTEMS if s.key not in OF_OTHER_SIZES])
def test_sizes_lie_at_one_and_around_powers_of_two(system):
    recipes = oracle.cases(system, ["float16"], kinds=["sizes"])
    assert {recipe.batch for recipe in recipes} == {1, 2, 3}
    positions = {recipe.height * recipe.width for recipe in recipes}
    assert {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129} == positions
    channels = {getattr(recipe.module, "channels", None) or recipe.module.inner.channels for recipe in recipes}
    multiple = 2 if system.key == "shuffle" else 1  # it cuts them into halves
    assert {-(-n // multiple) * multiple for n in positions} == channels


def test_softmax_attention_is_swept_over_head_dims_and_numbers_of_queries_and_keys():
    recipes = oracle.cases("sdpa", ["bfloat16"], kinds=["sizes"])
    assert {recipe.batch for recipe in recipes} == {1, 2, 3}
    dims = {recipe.module.head_dim for recipe in recipes}
    assert dims >= {1, 64, 96, 128, 160, 192, 256}
    assert all({dim - 1, dim + 1} & dims for dim in (64, 96, 128, 160, 192, 256))
    assert any(recipe.module.value_channels != recipe.module.head_dim for recipe in recipes)
    sizes = {(recipe.height, recipe.width) for recipe in recipes}
    assert {min(size) == max(size) for size in sizes} == {True, False}
    assert {1, 65, 1024} <= {queries for queries, _ in sizes}
    assert {1, 65, 1024} <= {keys for _, keys in sizes}
    options = [vars(recipe.module) for recipe in oracle.cases("sdpa", ["bfloat16"], kinds=["options"])]
    for name in ("bias", "mask", "lengths", "sink", "logsumexp"):
        assert {option[name] for option in options} == {True, False}
    for name in ("causal", "window", "softcap", "scale"):
        assert {option[name] is None for option in options} == {True, False}
    assert {option["key_heads"] for option in options} == {1, 2, 4}


@dataclass(frozen=True)
class OffByOne(npattn.ScaledDotProductAttention):
    """Attention whose band and lengths reach too far, or not far enough."""

    shifts: tuple[int, int, int] = (0, 0, 0)

    def band(self, queries, keys):
        bounds = zip(super().band(queries, keys), self.shifts[:2], strict=True)
        return tuple(None if bound is None else bound + shift for bound, shift in bounds)

    def attention_options(self, *args):
        options = super().attention_options(*args)
        return options | {"lengths": options["lengths"] + self.shifts[2]}

    def pairs(self, queries, keys):
        """Which keys each query sees, of each number of keys that count."""
        least, most = self.band(queries, keys)
        offsets = np.arange(keys) - np.arange(queries)[:, None]
        reached = (least is None or offsets >= least) & (most is None or offsets <= most)
        return reached & (np.arange(keys) < np.arange(1, keys + 1)[:, None, None] + self.shifts[2])


@pytest.mark.parametrize("hyperparameters", [{}, {"causal": None, "window": (1, 3)}], ids=["causal", "window"])
def test_no_case_of_attention_with_lengths_hides_a_mask_that_is_off_by_one(hyperparameters):
    recipes = oracle.cases("sdpa", ["float32"], kinds=["sizes"], lengths=True, **hyperparameters)
    hidden = []
    for recipe in [recipe for recipe in recipes if recipe.height < 1024]:
        queries, keys = recipe.height, recipe.width
        case = oracle.golden(
            recipe.module, batch=recipe.batch, height=queries, width=keys, dtype="float32", certify=False
        )
        right = OffByOne(**vars(recipe.module))
        for shifts in [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]:
            wrong = replace(right, shifts=shifts)
            differs = (wrong.pairs(queries, keys) != right.pairs(queries, keys)).any()
            output = wrong(case.params, *case.inputs.values()).output
            if differs == case.compare({"output": output}).passed:
                hidden.append((recipe.id, shifts, case.inputs["lengths"]))
    assert not hidden


@every_system
def test_every_module_of_the_sweep_runs_on_its_map(system):
    run_all(oracle.cases(system, ["float32"]))


@every_system
def test_training_and_every_kind_of_values_is_swept(system):
    recipes = oracle.cases(system, ["float16"])
    special = {"large", "ties", "zeros", "ones"}
    assert {recipe.values for recipe in recipes} == {"generic", *special}
    trained = {recipe.values for recipe in recipes if vars(recipe.module).get("training")}
    if hasattr(system, "training") and system.key != "residual":
        normed = system.example().buffer_shapes()  # without a norm there is an option that adds one
        assert trained == ({"generic", *special} if normed else {"generic"})
    else:
        assert not trained


def test_nothing_is_made_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(sys.modules["npattn.oracle.recipes"], "golden", lambda *_, **__: pytest.fail("made"))
    for system in SYSTEMS:
        oracle.cases(system)


def test_a_case_is_made_once():
    one, other = (oracle.cases("eca", ["float16"])[0] for _ in range(2))
    assert one is not other
    assert one.make() is other.make()


def test_large_inputs_overflow_a_softmax_without_its_maximum_and_nothing_else():
    for dtype in ("float16", "float32"):
        case = find("pam", "16x7x9-large", dtype)
        x = case.inputs["x"]
        rows = x.reshape(*x.shape[:2], -1)
        q, k, v = (
            case.params[f"{name}_conv.weight"][:, :, 0, 0] @ rows + case.params[f"{name}_conv.bias"][:, None]
            for name in ("query", "key", "value")
        )
        logits = q.swapaxes(1, 2) @ k
        with np.errstate(over="ignore", invalid="ignore"):
            e = np.exp(logits.astype(dtype))
            careless = v @ (e / e.sum(axis=2, keepdims=True)).swapaxes(1, 2)
        y = case.params["gamma"] * careless.reshape(x.shape) + x
        assert "not finite" in str(case.compare({"output": y}))
        assert case.compare({"output": nearest(case)["output"]}).passed
        assert all(np.isfinite(budget).all() for budget in case.budget.values())


@every_system
def test_large_inputs_are_no_larger_than_the_format_bears(system):
    (recipe,) = [r for r in oracle.cases(system, ["float16"], kinds=["large"]) if r.label == "large"]
    module, format = recipe.module, oracle.FORMATS["float16"]
    upstream = {name: np.ones(shape) for name, shape in module.output_shapes(1, 7, 9).items()}
    given = Given(*oracle.generic_values(module, batch=1, height=7, width=9), upstream)
    large = special("large", module, given, format)
    for name, result in run_on(Rounding(format), module, large.each(lambda a: representable(a, format))).items():
        assert np.isfinite(result).all(), name
    grown = {name: np.abs(x).max() / np.abs(given.inputs[name]).max() for name, x in large.inputs.items()}
    assert max(grown.values()) >= 2


@pytest.mark.parametrize("key", ["eca", "cam", "se"])
def test_large_inputs_are_a_quarter_as_large_with_each_draw_down_to_generic_ones(key, monkeypatch):
    module, format, runs = npattn.CATALOGUE[key].example(), oracle.FORMATS["float16"], []
    upstream = {name: np.ones(shape) for name, shape in module.output_shapes(1, 2, 3).items()}
    given = Given(*oracle.generic_values(module, batch=1, height=2, width=3), upstream)
    monkeypatch.setattr(special_inputs, "named_results", lambda *a: runs.append(1) or named_results(*a))
    scales, taken = [], []
    for draw in range(6):
        runs.clear()
        scales.append(special("large", module, given, format, draw).inputs["x"] / given.inputs["x"])
        taken.append(len(runs))
    for draw, scale in enumerate(scales):
        np.testing.assert_allclose(scale, np.maximum(scales[0] / 4**draw, 1))
    assert taken[-1] == 0
    assert taken[-2] < taken[0]


def test_ties_hold_few_numbers():
    x = find("cbam", "32x7x9-ties").inputs["x"]
    np.testing.assert_array_equal(np.unique(x), [-2, -1, 0, 1, 2])
    assert not (np.signbit(x) & (x == 0)).any()


def test_zeros_fill_channels_and_an_image():
    x = find("cam", "zeros").inputs["x"]
    assert not x[:, 1::2].any()
    assert not x[-1].any()
    assert x[:-1, ::2].all()


@pytest.mark.parametrize(("dtype", "blank"), [("float8_e5m2", False), ("bfloat16", True)])
def test_an_image_of_zeros_is_left_out_where_it_leads_beyond_the_format(dtype, blank):
    module = npattn.PixelCorrelation(channels=4, embedding=2)  # divides by 1e-5 there
    case = oracle.golden(module, batch=2, height=2, width=3, dtype=dtype, values="zeros")
    assert not case.inputs["features"][:, 1::2].any()
    assert case.inputs["features"][-1].any() != blank
    assert all(np.isfinite(budget).mean() >= 0.5 for budget in case.budget.values())


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_zeros_empty_the_last_image_of_several_and_no_other(batch):
    module = npattn.EfficientChannelAttention(4)
    given = Given(*oracle.generic_values(module, batch=batch, height=2, width=3), {})
    x = special("zeros", module, given, oracle.FORMATS["float16"]).inputs["x"]
    assert [bool(image.any()) for image in x] == ([True] if batch == 1 else [True] * (batch - 1) + [False])


@pytest.mark.parametrize("values", ["large", "ties", "zeros"])
def test_masks_and_noise_stay_what_they_are(values):
    dropping = npattn.MultiScaleConcat(2, 2, rates=(1,), training=True)
    hard = npattn.HardAttention(2)
    for module, name in [(dropping, "drop"), (hard, "noise")]:
        upstream = {name: np.ones(shape) for name, shape in module.output_shapes(3, 2, 3).items()}
        given = Given(*oracle.generic_values(module, batch=3, height=2, width=3), upstream)
        found = special(values, module, given, oracle.FORMATS["float16"])
        np.testing.assert_array_equal(given.inputs[name], found.inputs[name])
        assert (given.inputs["x"] != found.inputs["x"]).any()


@pytest.mark.parametrize("causal", [None, "top-left", "bottom-right"])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_a_last_block_of_attention_that_is_left_out_shows_in_some_case(block, causal):
    sizes = [
        (r.height, r.width) for r in oracle.cases("sdpa", ["float16"], kinds=["sizes"], causal=causal, window=None)
    ]
    last_seen = {None: lambda m, n: n - 1, "top-left": lambda m, n: min(m, n) - 1, "bottom-right": lambda m, n: n - 1}
    assert any(m > block and m % block for m, _ in sizes)
    assert any(n > block and n % block and last_seen[causal](m, n) >= n - n % block for m, n in sizes)


def test_a_limit_spreads_over_the_kinds():
    recipes = oracle.cases("cbam", ["float32", "float16"], limit=6)
    assert len(recipes) == 12
    assert {recipe.values for recipe in recipes} > {"generic"}
    assert len({recipe.id for recipe in recipes}) == 12
    assert oracle.cases("cbam", ["float16"], limit=1000) == oracle.cases("cbam", ["float16"])


def test_a_module_stays_as_it_is():
    module = npattn.PositionAttention(5, reduction=2)
    recipes = oracle.cases(module, ["float16"])
    assert {recipe.module for recipe in recipes} == {module}
    assert "options" not in {recipe.label for recipe in recipes}


def test_a_system_of_ones_own_is_swept():
    recipes = oracle.cases(Doubled, ["float16"], kinds=["sizes", "ties"])
    assert recipes[0].id == "Doubled-float16-2x1x5x3"
    case = recipes[-1].make()
    case.assert_matches({"output": 2 * case.inputs["x"]})


def test_a_key_a_class_and_the_example_agree_on_the_format_and_kinds():
    by_key, by_class = (oracle.cases(system, ["bfloat16"]) for system in ("se", npattn.SqueezeExcitation))
    assert by_key == by_class
    assert oracle.cases("se", [np.float32], kinds=["zeros"])[0].id == "se-float32-3x32x7x9-zeros"
    assert {kind: len(oracle.cases("se", ["float16"], kinds=[kind])) > 0 for kind in KINDS} == dict.fromkeys(
        KINDS, True
    )


@for_each(
    ("arguments", "options", "error", "words"),
    [
        (["EfficientChannel"], {}, ValueError, "did you mean 'eca'? npattn list names them all"),
        (["zzzzz"], {}, ValueError, "system='zzzzz'; expected a key of a system, such as 'pam':"),
        (
            ["ops.masked_attention"],
            {},
            ValueError,
            "'ops.masked_attention' is no system, but a step of some; expected one of these: sdpa, mhsa",
        ),
        (
            ["foo"],
            {},
            ValueError,
            "system='foo'; expected a key of a system, such as 'pam': npattn list names them all",
        ),
        (["ecs"], {}, ValueError, "system='ecs'; did you mean 'eca'? npattn list names them all"),
        ([3], {}, TypeError, "system is an int; expected a key such as 'pam', a class or a module"),
        ([int], {}, TypeError, "system is a type"),
        (["eca", ["bfloat15"]], {}, ValueError, "dtype='bfloat15'; did you mean 'bfloat16'?"),
        (["eca", "bfloat16"], {}, TypeError, "formats='bfloat16' is a str; expected a list: ['bfloat16']"),
        (["eca"], {"kinds": ["tie"]}, ValueError, "kinds holds an unknown 'tie'; did you mean 'ties'?"),
        (["eca"], {"kinds": "ties"}, TypeError, "kinds='ties' is a str; expected a list: ['ties']"),
        (["eca"], {"limit": 0}, ValueError, "limit=0; expected an integer of at least 1"),
        (["eca"], {"seed": -1}, ValueError, "seed=-1; expected an integer of at least 0"),
        (["eca"], {"shapes": (1, 64, 7, 7)}, TypeError, "expected a list of shapes, such as [(8, 256, 56, 56)]"),
        (["eca"], {"shapes": []}, TypeError, "shapes=[]; expected a list of shapes"),
        (["eca"], {"shapes": "1x64x7x7"}, TypeError, "expected a list of shapes"),
        (["eca"], {"shapes": [(64, 7)]}, ValueError, "shapes holds (64, 7); expected (batch, channels, height, width)"),
        (["eca"], {"shapes": [(1, 64, 7, 0)]}, ValueError, "shapes: width=0; expected an integer of at least 1"),
        (["eca"], {"shapes": [(1, 6.5, 7, 1)]}, TypeError, "shapes: channels=6.5 is a float"),
        (
            ["eca"],
            {"shapes": [(1, 64, 7, 7)], "channels": 8},
            ValueError,
            "has shape (1, 8, 7, 7); expected (1, 8, 7, 7)",
        ),
        (
            ["sdpa"],
            {"shapes": [(2, 4, 9, 7)], "head_dim": 8},
            ValueError,
            "shape (2, 4, 9, 8); expected (2, 8, 9, 7) or",
        ),
        ([npattn.CBAM(8)], {"shapes": [(1, 64, 7, 7)]}, ValueError, "but x of CBAM(channels=8"),
        (["mhsa"], {"shapes": [(1, 9, 8, 8)], "heads": 2}, ValueError, "expected a divisor of channels=9"),
        (["soft-hard"], {"shapes": [(1, 9, 2, 2)], "k": 9}, ValueError, "at least k=9 positions to choose from"),
        (["eca"], {"reduction": 4}, TypeError, "unknown hyperparameter 'reduction' (expected channels, kernel_size"),
        (["eca"], {"kernel": 3}, TypeError, "unknown hyperparameter 'kernel'; did you mean 'kernel_size'?"),
        (["eca"], {"format": ["float16"]}, TypeError, "unknown hyperparameter 'format'; did you mean 'formats'?"),
        (["eca"], {"kernel_size": 4}, ValueError, "kernel_size=4; expected an odd number"),
        (["eca"], {"channels": -1}, ValueError, "channels=-1; expected an integer of at least 1"),
        (["eca"], {"seed": 2**32}, ValueError, "cases: seed=4294967296; expected an integer of at most 2**32 - 1"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_meant(arguments, options, error, words):
    with pytest.raises(error) as caught:
        oracle.cases(*arguments, **options)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_make_the_same_recipes_as_pythons(tmp_path):
    options = {"shapes": [(1, 8, 300, 2)], "limit": 2, "seed": 3, "channels": 8}
    numpys = {"shapes": [(np.int8(1), 8, np.int32(300), 2)], "limit": np.int8(2), "seed": np.int64(3)}
    found, expected = (oracle.cases("eca", ["float32"], **given) for given in (options | numpys, options))
    assert list(map(repr, found)) == list(map(repr, expected))
    assert oracle.suite(found, tmp_path).failed == {}
    by_hand = oracle.Recipe(npattn.SimAM(4), "float32", np.uint8(1), np.int64(3), 2, seed=np.uint16(1))
    assert repr(by_hand) == repr(oracle.Recipe(npattn.SimAM(4), "float32", 1, 3, 2, seed=1))
    assert oracle.cases("eca", limit=np.int8(20)) == oracle.cases("eca", limit=20)
    assert oracle.cases("cbam", pools=["avg"]) == oracle.cases("cbam", pools=("avg",))
    assert oracle.cases("eca", kinds={"ties", "zeros"}) == oracle.cases("eca", kinds=["zeros", "ties"])


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="golden: values='tie'; did you mean 'ties'"):
        oracle.golden(npattn.CATALOGUE["eca"].example(), values="tie")


@every_system
def test_layouts_and_an_empty_batch_are_swept(system):
    recipes = oracle.cases(system, ["float16"], kinds=["layouts", "empty"])
    assert [(r.layout, r.values) for r in recipes if r.batch] == [
        ("broadcast", "ones"),
        ("transposed", "generic"),
        ("sliced", "generic"),
        ("channels-last", "generic"),
    ]
    assert [r.label for r in recipes if not r.batch] == ["empty"]


@for_each("system", TURNS[1])
def test_a_correct_kernel_passes_where_inputs_and_a_sums_gradient_are_broadcast(system):
    (recipe,) = [r for r in oracle.cases(system, ["bfloat16"], kinds=["layouts"]) if r.layout == "broadcast"]
    sizes = {"batch": recipe.batch, "height": 4, "width": 4}
    case = oracle.golden(small_example(system), **sizes, dtype="bfloat16", layout="broadcast", certify=False)
    case.assert_matches(nearest(case), require="all")


@every_system
def test_own_shapes_replace_the_sweeps(system):
    recipes = oracle.cases(system, ["float16"], shapes=[(5, 64, 10, 14), (1, 24, 6, 8)])
    assert [(r.batch, r.height, r.width) for r in recipes] == [(5, 10, 14), (1, 6, 8)]
    for recipe, channels in zip(recipes, (64, 24), strict=True):
        shapes = recipe.module.input_shapes(recipe.batch, recipe.height, recipe.width)
        found = (recipe.batch, channels, recipe.height, recipe.width) in shapes.values()
        assert found or recipe.module.channels == channels  # of queries and keys, which are no maps
        assert f"x{channels}x" in recipe.id


@every_system
def test_shapes_without_channels_leave_a_module_as_it_is(system):
    example = system.example().for_size(10, 14)
    for given in (system, example):
        (recipe,) = oracle.cases(given, ["float16"], shapes=[(2, 10, 14)])
        assert recipe.module == example


def test_every_kind_is_of_each_shape_and_by_default_sizes_alone_are():
    shapes = [(2, 16, 5, 6), [1, 32, 8, 8]]
    assert [r.label for r in oracle.cases("cbam", ["float16"], shapes=shapes)] == ["", ""]
    kinds = ["sizes", "large", "layouts", "empty", "options"]
    several = oracle.cases("cbam", ["float16"], shapes=shapes, kinds=kinds)
    one = [oracle.cases("cbam", ["float16"], shapes=[shape], kinds=kinds) for shape in shapes]
    assert set(several) == {recipe for recipes in one for recipe in recipes}
    assert {(r.module.channels, r.height, r.width) for r in several} == {(16, 5, 6), (32, 8, 8)}
    assert {"training", "training-large", "sliced", "empty", "spatial"} & {r.label for r in several} >= {
        "training",
        "training-large",
        "sliced",
        "empty",
    }
    assert len({r.id for r in several}) == len(several)


@dataclass(frozen=True)
class SumOfSquares(Module):
    """One number of many rows."""

    def input_shapes(self, batch, height, width):
        return {"rows": (batch * height * width, 3)}

    def output_shapes(self, batch, height, width):
        return {"output": ()}

    def forward(self, params, rows):
        return Pass((rows * rows).sum(), lambda dy: (2 * dy * rows, {}))


@for_each("shape, broadcast", [((3, 7, 9), False), ((2, 2, 2), True)])
def test_a_layout_is_left_out_of_which_nothing_can_be_made(shape, broadcast):
    recipes = oracle.cases(SumOfSquares(), ["float16"], kinds=["layouts"], shapes=[shape])
    assert [recipe.label for recipe in recipes if recipe.make()][-3:] == ["transposed", "sliced", "channels-last"]
    assert len(recipes) == 3 + broadcast


def test_a_recipe_leaves_to_golden_what_it_does_not_say():
    defaults = inspect.signature(oracle.golden).parameters
    for field in fields(oracle.Recipe):
        if field.name in defaults and field.default is not MISSING:
            assert field.default == defaults[field.name].default


@for_each(
    ("key", "hyperparameters"),
    [
        ("se", {"reduction": 3}),
        ("se", {"channels": 24, "reduction": 5}),
        ("eca", {"gamma": 3.5, "b": 0}),
        ("mhsa", {"heads": 3}),
        ("mhsa", {"heads": 32}),
        ("mhsa", {"channels": 7}),
        ("cbam", {"pools": ("max",), "spatial": False}),
        ("cbam", {"training": True}),
        ("cbam", {"training": False}),
        ("soft-hard", {"k": 40}),
        ("residual", {"inner": npattn.PositionAttention(5)}),
        (npattn.PositionAttention(6), {"reduction": 2}),
    ],
)
def test_hyperparameters_stay_what_they_are_in_all_cases(key, hyperparameters):
    recipes = oracle.cases(key, ["float16"], **hyperparameters)
    assert len(recipes) >= 12
    ids = [recipe.id for recipe in recipes]
    assert len(set(ids)) == len(ids)
    shown = {name: value for name, value in hyperparameters.items() if name != "training" or value}
    assert all(write_label(shown) in name for name in ids)
    for recipe in recipes:
        assert {name: getattr(recipe.module, name) for name in hyperparameters} == hyperparameters
    run_all(recipes)


def test_what_is_switched_off_anyway_is_no_part_of_an_id():
    off = {"lengths": False, "logsumexp": False}
    ids = [recipe.id for recipe in oracle.cases("sdpa", ["float16"], causal="top-left", **off)]
    assert all("causal-top-left" in name and "no_" not in name for name in ids)
    assert all("no_sink" in recipe.id for recipe in oracle.cases("sdpa", ["float16"], sink=False))


@pytest.mark.parametrize("key", npattn.CATALOGUE)
def test_no_option_of_a_system_is_one_that_it_refuses(key):
    labels = [recipe.label for recipe in oracle.cases(key, ["float16"], kinds=["options"])]
    assert {write_label(change) for change in OPTIONS.get(key, ())} <= set(labels)


def test_options_that_a_system_of_ones_own_refuses_are_left_out_and_channels_are_its_own_then():
    @dataclass(frozen=True)
    class Even(Doubled):
        channels: int = 8
        power: int = 2
        options: ClassVar = ({"power": 0}, {"power": 3})

        def __post_init__(self):
            super().__post_init__()
            if self.channels % 2 or not self.power:
                raise ValueError(f"{self}: expected even channels and a power")

    assert [r.label for r in oracle.cases(Even, ["float16"], kinds=["options"])] == ["power-3"]
    assert [r.module.channels for r in oracle.cases(Even, ["float16"], kinds=["sizes"])][:4] == [8, 16, 8, 16]
    with pytest.raises(ValueError, match="even channels"):
        oracle.cases(Even, ["float16"], channels=7)


def test_channels_still_vary_where_other_hyperparameters_stay():
    channels = [r.module.channels for r in oracle.cases("mhsa", ["float16"], kinds=["sizes"], heads=4)]
    assert channels[:6] == [4, 16, 16, 16, 20, 32]
    assert {r.module.channels for r in oracle.cases("se", ["float16"], kinds=["sizes"], reduction=2)} >= {1, 15, 129}


def test_a_case_of_a_real_size_and_hyperparameter_is_what_was_asked_for():
    (recipe,) = oracle.cases("eca", ["float16"], shapes=[(2, 96, 6, 7)], kernel_size=7)
    assert recipe.id == "eca-float16-2x96x6x7-kernel_size-7"
    case = recipe.make()
    assert case.inputs["x"].shape == (2, 96, 6, 7)
    assert case.params["conv.weight"].shape == (1, 1, 7)


def test_maps_that_a_system_does_not_take_are_left_out_unless_they_were_asked_for():
    assert [r.label for r in oracle.cases(npattn.CBAM(8, training=True), ["fp16"], kinds=["empty", "ones"])] == ["ones"]
    with pytest.raises(ValueError, match=r"takes none of the maps: .* two values in each channel"):
        oracle.cases(npattn.CBAM(8, training=True), ["float16"], kinds=["empty"])


def test_a_format_under_two_names_is_swept_once():
    once = [recipe.id for recipe in oracle.cases("eca", ["float16", "bfloat16"], limit=2)]
    assert [recipe.id for recipe in oracle.cases("eca", ["fp16", "bf16", "half", "bfloat16"], limit=2)] == once


def test_a_class_is_made_of_the_hyperparameters_that_are_asked_for_where_it_has_no_defaults():
    @dataclass(frozen=True)
    class Needy(Module):
        dim: int
        channels: int = 2

        def forward(self, params, x):
            return Pass(self.dim * x, lambda dy: (self.dim * dy, {}))

    recipes = oracle.cases(Needy, ["float16"], kinds=["ties"], dim=3)
    assert {recipe.module.dim for recipe in recipes} == {3}
    assert all("dim-3" in recipe.id for recipe in recipes)
    with pytest.raises(TypeError, match="Needy has no example: dim must be given"):
        oracle.cases(Needy)
    with pytest.raises(TypeError, match="dim"):
        oracle.cases(Needy, channels=2)


def test_a_hyperparameter_that_may_change_is_refused_by_its_name():
    @dataclass(frozen=True)
    class Scaled(Module):
        channels: int = 2
        scales: tuple[float, ...] = (1.0,)

        def forward(self, params, x):
            return Pass(self.scales[0] * x, lambda dy: (self.scales[0] * dy, {}))

    assert oracle.cases(Scaled, scales=(2.0,))
    for system, options in ((Scaled(scales=[2.0]), {}), (Scaled, {"scales": [2.0]})):
        with pytest.raises(TypeError, match=r"scales=\[2.0\] of Scaled is a list.*expected.*a tuple"):
            oracle.cases(system, **options)
