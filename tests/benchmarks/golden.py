"""Time what a test waits for when it asks for a golden case, and what a user waits for: import and check.

    python tests/benchmarks/golden.py
    python tests/benchmarks/golden.py mhsa danet --formats bfloat16

prints seconds by system and format, of one image of 64 channels and 32 × 32 positions, and then how long `import
npattn` with its catalogue takes in a fresh process that has imported NumPy and SciPy, and `npattn check`.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
import time

import npattn
from npattn import oracle

CHANNELS, SIZE = 64, (32, 32)
IMPORT = """
import time, numpy, scipy
start = time.perf_counter()
import npattn
npattn.CATALOGUE
print(time.perf_counter() - start)
"""


def widened(module):
    """Give a module its number of channels; a residual connection gives it to what it wraps."""
    fields = {field.name for field in dataclasses.fields(module)}
    if "inner" in fields:
        return dataclasses.replace(module, inner=widened(module.inner))
    name = next(name for name in ("in_channels", "head_dim", "channels") if name in fields)
    return dataclasses.replace(module, **{name: CHANNELS})


def time_golden(key, dtype):
    """Return the seconds in which a golden case of a system at its usual settings is made."""
    height, width = SIZE
    module = widened(npattn.CATALOGUE[key].example())
    start = time.perf_counter()
    oracle.golden(module, batch=1, height=height, width=width, dtype=dtype)
    return time.perf_counter() - start


def time_import(repeats=5):
    """Return the median of the seconds that the import takes beyond NumPy's and SciPy's."""
    command = [sys.executable, "-c", IMPORT]
    return statistics.median(
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(repeats)
    )


def time_check():
    """Return the seconds that the check of all systems takes, with its start."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "import sys; from npattn.cli import main; sys.exit(main(['check']))"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main(argv=None):
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    formats = "bfloat16", "float16", "float32"
    parser.add_argument("--formats", nargs="+", default=formats, choices=list(oracle.FORMATS))
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in npattn.CATALOGUE:
            parser.error(f"unknown system {key!r}; there are {', '.join(npattn.CATALOGUE)}")
    print(f"{'':<22}" + "".join(f"{name:>12}" for name in arguments.formats))
    for key in arguments.keys or npattn.CATALOGUE:
        seconds = (time_golden(key, dtype) for dtype in arguments.formats)
        print(f"{key:<22}" + "".join(f"{found:>10.2f} s" for found in seconds), flush=True)
    if not arguments.keys:
        print(f"import npattn {time_import():.3f} s, npattn check {time_check():.1f} s")


if __name__ == "__main__":
    main()
