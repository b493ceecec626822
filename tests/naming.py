"""Statements about many cases in one test, where a test for each would take longer to start than to run."""

import contextlib
import functools
import inspect


@contextlib.contextmanager
def case(*values):
    """Whatever fails within says of which case, as the name of a test of its own would."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case of {', '.join(map(repr, values))}")
        raise


def for_each(names, cases):
    """Make one test of what `pytest.mark.parametrize` would make many of: it names the cases that fail, all of them.

    Fixtures are made once.
    """
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    cases = [values if len(names) > 1 else (values,) for values in cases]

    def decorate(test):
        @functools.wraps(test)
        def run(**arguments):
            errors = []
            for values in cases:
                try:
                    with case(*values):
                        test(**arguments, **dict(zip(names, values, strict=True)))
                except Exception as error:
                    errors.append(error)
            if len(errors) == 1:
                raise errors[0]
            if errors:
                raise ExceptionGroup(f"{len(errors)} of {len(cases)} cases", errors)

        signature = inspect.signature(test)
        rest = [parameter for name, parameter in signature.parameters.items() if name not in names]
        run.__signature__ = signature.replace(parameters=rest)
        return run

    return decorate
