"""The examples of all systems, large enough for faster ways, where there are any: this must not import them."""

import npattn
from npattn.module import as_tuple
from npattn.oracle import generic_values


def run_all():
    """Run the example of every system: outputs and gradients by name."""
    found = {}
    for key, system in npattn.CATALOGUE.items():
        module = system.example()
        params, inputs = generic_values(module, batch=16, height=16, width=16)
        run = module(params, *inputs.values())
        dinputs, grads = run.backward(run.output)
        results = dict(enumerate([*as_tuple(run.output), *as_tuple(dinputs)])) | grads
        found |= {f"{key} {name}": value for name, value in results.items() if value is not None}
    return found
