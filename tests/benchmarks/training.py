"""Train small networks with each attention system, at equal parameters, and say what that brings.

    NPATTN_DEFINITIONS=1 python tests/benchmarks/training.py

trains every case with several seeds, which takes about five minutes on one core, and prints two tables: of the network
that segments maps, and of the one that looks at a single position. On such small maps definitions are the quicker way.
The runs are kept in a file beside this one as they come (`--results FILE`: in another); those in it are not made again.

    python tests/benchmarks/training.py --plot FILE --attention FILE

draws the kept runs, and what two systems look at before and after training.
"""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npattn import Module, Pass
from npattn.training import ESTIMATORS, count_parameters, evaluate, evaluate_glimpses, train, train_glimpses

NUM_SEEDS = 5
NUM_FAULT_SEEDS = 3
RESULTS = Path(__file__).with_suffix(".jsonl")
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


SYSTEMS = ["none", "se", "eca", "cbam", "pam+cam", "sdpa"]
CASES = {
    **{key: {"key": key} for key in SYSTEMS},
    "se, map detached": {"key": "se", "change": detach},
    "pam+cam, map detached": {"key": "pam+cam", "change": detach},
    "pam+cam, γ gets no gradient": {"key": "pam+cam", "without": ("attention.sa.gamma", "attention.sc.gamma")},
}
"""What is trained, by the name in the table."""


def measure(name, seed):
    """Train one case with one seed; return what is kept of it."""
    *_, run = train(seed=seed, **CASES[name])
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


def measure_glimpses(name, seed):
    """The same of the network that looks at one position."""
    *_, run = train_glimpses(name, seed=seed)
    right, hit = evaluate_glimpses(run)
    losses = [round(float(np.mean(part)), 4) for part in np.array_split(run.losses, NUM_KEPT)]
    return {"case": name, "seed": seed, "right": round(right, 4), "hit": round(hit, 4), "losses": losses}


def complete(path, seeds):
    """Make the runs that the file lacks, and append each to it; return all."""
    found = read(path)
    have = {(run["case"], run["seed"]) for run in found}
    wanted = [(name, seed) for seed in range(seeds) for name in SYSTEMS]
    wanted += [(name, seed) for seed in range(min(seeds, NUM_FAULT_SEEDS)) for name in CASES]
    wanted += [(name, seed) for seed in range(seeds) for name in ESTIMATORS]
    for name, seed in dict.fromkeys(wanted):
        if (name, seed) not in have:
            found.append((measure if name in CASES else measure_glimpses)(name, seed))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found[-1], ensure_ascii=False) + "\n")
    return [run for run in found if run["seed"] < seeds]


def read(path):
    """Read the runs of a file, one a line; none if there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def tables(found):
    """Write mean and standard deviation over the seeds of each case."""
    fields = {"accuracy": "pixels", "digit_accuracy": "digits' pixels", "mean_iou": "mean IoU"}
    glimpsed = {"right": "digits named", "hit": "digits seen"}
    return table(found, CASES, fields) + "\n\n" + table(found, ESTIMATORS, glimpsed)


def table(found, cases, fields):
    """Write one table: a row for each case, a column for each field."""
    width = max(map(len, CASES))
    lines = [" " * width + "  seeds  params" + "".join(f"{heading:>15}" for heading in fields.values())]
    for name in cases:
        runs = [run for run in found if run["case"] == name]
        if runs:
            params = f"{runs[0]['parameters']:,}" if "parameters" in runs[0] else ""
            cells = [spread([run[field] for run in runs]) for field in fields]
            row = f"{name:<{width}}  {len(runs):>5}  {params:>6}" + "".join(f"{cell:>15}" for cell in cells)
            lines.append(row.rstrip())
    return "\n".join(lines)


def spread(values):
    """Write a mean and the standard deviation of one run, in percent; one run alone has none."""
    deviation = f" ± {100 * np.std(values, ddof=1):>4.1f}" if len(values) > 1 else " " * 7
    return f"{100 * np.mean(values):.1f}{deviation}"


def main(argv=None):
    """Train what is missing, print the tables; or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, metavar="N")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--attention", metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.plot or arguments.attention:
        from tests.benchmarks import training_drawing

        if arguments.plot:
            training_drawing.save(training_drawing.draw_runs(read(arguments.results)), arguments.plot)
        if arguments.attention:
            training_drawing.save(training_drawing.draw_attention(), arguments.attention)
        return
    print(tables(complete(arguments.results, arguments.seeds)))


if __name__ == "__main__":
    main()
