"""Statements about many cases in one test, where a test for each would take longer to start than to run."""

import contextlib


@contextlib.contextmanager
def case(*values):
    """Whatever fails within says of which case, as the name of a test of its own would."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case of {', '.join(map(repr, values))}")
        raise
