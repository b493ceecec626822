"""Hypothesis strategies: modules with any hyperparameters, their parameters and inputs, for property tests.

They are drawn by seed through `generic_values`, away from zeros and ties, and shrink to small sizes and small seeds.
"""

try:
    from npattn.oracle.strategies.cases import cases, inputs, parameters
    from npattn.oracle.strategies.catalogue import modules
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ImportError("npattn.oracle.strategies needs Hypothesis: pip install hypothesis") from error

__all__ = ["cases", "inputs", "modules", "parameters"]
