import numpy as np
import pytest

from npattn import HaloAttention
from npattn.attention_maps import MapByRows, MapsOnDemand
from npattn.oracle import generic_values
from tests.strategies import SYSTEMS

MODULES = [system.example() for system in SYSTEMS if issubclass(system, MapByRows)]
STRIDED = HaloAttention(channels=4, heads=1, head_dim=2, block_size=4, halo_size=1, stride=2)

every_module = pytest.mark.parametrize("module", [*MODULES, STRIDED], ids=lambda module: module.key)


@every_module
def test_rows_are_those_of_the_whole_map(module):
    params, inputs = generic_values(module)
    whole = module.attention_map(params, inputs["x"])
    rows = [whole.shape[-2] - 1, 0]
    found = module.attention_map(params, inputs["x"], rows)
    np.testing.assert_allclose(found, whole[..., rows, :], rtol=1e-12, atol=1e-15)
    assert module.attention_map(params, inputs["x"], []).shape == (*whole.shape[:-2], 0, whole.shape[-1])


@every_module
def test_a_row_that_is_no_query_is_refused(module):
    params, inputs = generic_values(module)
    count = module.attention_map(params, inputs["x"]).shape[-2]
    with pytest.raises(ValueError) as caught:
        module.attention_map(params, inputs["x"], [0, count])
    message = f"{module}.attention_map: rows holds {count}; expected positions from 0 to {count - 1}"
    height, width = module.query_size(*inputs["x"].shape[2:])
    message += f": row r and column c of the map of {height} × {width} are position {width} r + c"
    assert str(caught.value) == message


@every_module
def test_inputs_that_a_call_refuses_are_refused(module):
    params, inputs = generic_values(module)
    with pytest.raises(TypeError, match="got 2 inputs; expected 1: x"):
        module.attention_map(params, inputs["x"], others=[inputs["x"]])


def test_a_map_is_made_when_it_is_first_asked_for_and_not_again():
    made = []

    def make():
        made.append(np.ones(2))
        return made[-1]

    maps = MapsOnDemand(gate=make)
    assert list(maps) == ["gate"]
    assert len(maps) == 1
    assert not made
    assert maps["gate"] is maps["gate"]
    assert len(made) == 1
    assert repr(maps) == "{'gate': array([1., 1.])}"


def test_maps_on_demand_join_dicts():
    one, other = np.ones(2), np.zeros(3)
    maps = MapsOnDemand(gate=lambda: one)
    assert list(maps | {"other": other}) == ["gate", "other"]
    assert list({"other": other} | maps) == ["other", "gate"]
    assert (maps | {"gate": other})["gate"] is other
    assert ({"gate": other} | maps)["gate"] is one
