"""Train the small network with each attention system, at equal parameters, and say what that brings.

    python tests/benchmarks/training.py --results derivations/pictures/training.json

trains every case with five seeds, which takes about ten minutes on one core, and prints the table. The results are
kept in the file as they come; those that are in it are not made again.

    python tests/benchmarks/training.py --results derivations/pictures/training.json --plot FILE

draws them; `--attention FILE` draws what three systems look at, before and after training.
"""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npattn import Module, Pass, definitions
from npattn.training import count_parameters, evaluate, train

NUM_SEEDS = 5
NUM_KEPT = 30
"""Means of the loss, and values of a scale such as γ, that are kept of each run."""


@dataclass(frozen=True)
class Detached(Module):
    """A system that reads its map detached: what it adds to the map or multiplies it by counts as constant to it."""

    inner: Module

    @property
    def channels(self):
        return self.inner.channels

    def parameters(self):
        return self.inner.parameters()

    def forward(self, params, x):
        run = self.inner.forward(params, x)
        gate = run.attention.get("channel")

        def backward(dy):
            _, grads = run.backward(dy)
            return dy if gate is None else dy * gate[:, :, None, None], grads

        return Pass(run.output, backward, run.attention)


def detach(network):
    """Make the network's system read its map detached."""
    return dataclasses.replace(network, attention=Detached(network.attention))


SYSTEMS = ["none", "se", "eca", "cbam", "pam+cam", "sdpa", "window"]
CASES = {
    **{key: {"key": key} for key in SYSTEMS},
    "se, map detached": {"key": "se", "change": detach},
    "pam+cam, map detached": {"key": "pam+cam", "change": detach},
    "pam+cam, γ gets no gradient": {"key": "pam+cam", "without": ("attention.sa.gamma", "attention.sc.gamma")},
}
"""What is trained, by the name in the table."""


def measure(name, seed):
    """Train one case with one seed; return what is kept of it."""
    with definitions():  # of such small maps they are the quicker way
        for run in train(seed=seed, **CASES[name]):
            pass
        scores = evaluate(run)
    return {
        "case": name,
        "seed": seed,
        "parameters": count_parameters(run.network),
        **{field: round(value, 4) for field, value in dataclasses.asdict(scores).items()},
        "losses": [round(float(np.mean(part)), 4) for part in np.array_split(run.losses, NUM_KEPT)],
        "scalars": {
            name.removeprefix("attention."): [round(float(part[-1]), 4) for part in np.array_split(values, NUM_KEPT)]
            for name, values in run.scalars.items()
            if name.endswith("gamma")
        },
    }


def complete(path, seeds):
    """Make the runs that the file lacks, and append each to it; return all."""
    found = read(path)
    have = {(run["case"], run["seed"]) for run in found}
    wanted = [(name, seed) for cases in (SYSTEMS, CASES) for seed in range(seeds) for name in cases]
    for name, seed in dict.fromkeys(wanted):
        if (name, seed) not in have:
            found.append(measure(name, seed))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found[-1], ensure_ascii=False) + "\n")
    return [run for run in found if run["seed"] < seeds]


def read(path):
    """Read the runs of a file, one a line; none if there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def table(found):
    """Write mean and standard deviation over the seeds of each case."""
    width = max(map(len, CASES))
    lines = [f"{'':<{width}}  seeds  params      pixels     digits' pixels    mean IoU"]
    for name in CASES:
        runs = [run for run in found if run["case"] == name]
        if runs:
            cells = [spread([run[field] for run in runs]) for field in ("accuracy", "digit_accuracy", "mean_iou")]
            lines.append(f"{name:<{width}}  {len(runs):>5}  {runs[0]['parameters']:>6,}  {'  '.join(cells)}")
    return "\n".join(lines)


def spread(values):
    """Write a mean and the standard deviation of one run, in percent."""
    return f"{100 * np.mean(values):5.1f} ± {100 * np.std(values, ddof=len(values) > 1):<5.1f}"


def main(argv=None):
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, metavar="N")
    arguments = parser.parse_args(argv)
    print(table(complete(arguments.results, arguments.seeds)))


if __name__ == "__main__":
    main()
