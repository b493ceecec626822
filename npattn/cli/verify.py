"""``npattn verify``: a kernel's results, judged by a golden file or a suite of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npattn.cli.arguments import Parser, UsageError, add_command, parse_seconds
from npattn.cli.streams import describe_error, progress
from npattn.oracle import ArchiveError, Case, Comparison, Judgement, load
from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.described import Described
from npattn.oracle.mistakes import SECONDS, Diagnosis, Suspect
from npattn.oracle.suites import MANIFEST, Entry, hash_file, read_manifest
from npattn.wording import did_you_mean

__all__ = ["add_verify"]

MORE = "--seconds {}"
"""How a search for mistakes is given more time."""


def add_verify(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    verify = add_command(
        commands,
        "verify",
        run_verify,
        "Judge a kernel's results by a golden file, or by a suite of them.\n\n"
        "RESULTS is an .npz file with any of the golden file's results, named as there:\n"
        "output.npy, x.grad.npy, conv.weight.grad.npy, ... in any floating dtype, or a\n"
        "folder of these .npy files. For bfloat16 and 8-bit floats .npy has no dtype:\n"
        "write them as float32. Where FILE is a suite's folder, RESULTS is a folder with\n"
        "such a file or folder for each case: NAME.npz or NAME/ for NAME.npz of it.\n\n"
        "Steps are judged too, by the names that they have in npattn trace: '(3) a.npy',\n"
        "\"(3') dz.npy\", 'sa / (4) o.npy', which in a folder is 'sa - (4) o.npy'. The\n"
        "report then names the first that is off.\n\n"
        "Exit status: 0 if a correct kernel may have given all of them, 1 if not, 2 if\n"
        "the input is bad.",
        "npattn verify eca-float16.npz results.npz",
        "npattn verify eca-float16.npz results.npz --explain",
        "npattn verify cases results --all --json",
    )
    verify.add_argument("golden", metavar="FILE", help="golden file, or a suite's folder, as npattn golden writes them")
    verify.add_argument("results", metavar="RESULTS", help="the kernel's results (.npz, or a folder)")
    verify.add_argument("--all", action="store_true", help="every result of every case must be there")
    verify.add_argument("--explain", action="store_true", help="say which known mistakes wrong results look like")
    verify.add_argument(
        "--seconds",
        type=parse_seconds,
        metavar="S",
        help=f"with --explain: how long a search may compute (default: {SECONDS:g})",
    )
    verify.add_argument("--json", action="store_true", help="print the verdicts for programs, as one JSON object")


@dataclass(frozen=True)
class Verdict:
    """What was found of one case.

    Attributes
    ----------
    golden : str
        The golden file.
    results : str or None
        Where the kernel's were read from; None where there are none.
    report : Comparison or None
        None where nothing could be compared.
    error : str
        What is wrong with a file; else empty.
    diagnosis : Diagnosis or None
        What wrong results look like, where that is asked for.
    """

    golden: str
    results: str | None
    report: Comparison | None = None
    error: str = ""
    diagnosis: Diagnosis | None = None


def run_verify(arguments: argparse.Namespace) -> int:
    """Print how far a kernel's results are off."""
    suite = Path(arguments.golden).is_dir()
    found = list(judge_suite(arguments) if suite else [judge_file(arguments)])
    passed = all(has_passed(verdict, arguments.all) for verdict in found)
    if arguments.json:
        text = json.dumps({"passed": passed, "cases": [to_json(one, arguments.all) for one in found]}, indent=1)
    else:
        text = "\n".join(write_suite(found, arguments.all) if suite else write_verdict(found[0]))
    with contextlib.suppress(BrokenPipeError):  # a reader that has seen enough does not change the verdict
        print(text)
    return 2 if any(verdict.error for verdict in found) else 0 if passed else 1


def judge_file(arguments: argparse.Namespace) -> Verdict:
    """Judge results by one golden file."""
    case = load(arguments.golden)
    return judge_results(case, arguments, arguments.golden, arguments.results)


def judge_results(case: Case, arguments: argparse.Namespace, golden: str, place: str) -> Verdict:
    """Judge results by a case; where asked to, say what wrong ones look like."""
    results = read_results(place, case)
    report = case.compare(results, require="all" if arguments.all else None)
    diagnosis = (
        case.diagnose(results, seconds=arguments.seconds)
        if arguments.explain and any(not j.within for j in report.judgements.values())
        else None
    )
    if diagnosis is not None and isinstance(case.module, Described):
        diagnosis = replace(diagnosis, hints=(way_to_explain(case.module.name, golden, place),))
    return Verdict(golden, place, report, diagnosis=diagnosis)


def way_to_explain(system: str, golden: str, place: str) -> str:
    """Say how the mistakes of a system are tried whose code a golden file does not hold, and the command has not."""
    results = "results" if Path(place).is_dir() else f"numpy.load({place!r})"
    return f"in Python: case = npattn.oracle.load({golden!r}, systems=[{system}]); case.diagnose({results})"


def judge_suite(arguments: argparse.Namespace) -> Iterator[Verdict]:
    """Judge results by each golden file of a folder; what is wrong with one file stops none of the others."""
    golden, results = Path(arguments.golden), Path(arguments.results)
    if not (golden / MANIFEST).exists():
        raise UsageError(f"{golden}: a folder without {MANIFEST}; expected one that npattn golden --suite has written")
    entries = read_manifest(golden)
    if not results.is_dir():
        raise UsageError(f"{results} is no folder; expected one with NAME.npz or NAME/ for each NAME.npz of {golden}")
    places = find_places(results, entries)
    for done, (name, entry) in enumerate(sorted(entries.items())):
        progress(f"judging {name} ({done + 1} of {len(entries)})")
        place = places.get(name)
        try:
            if entry.sha256 is None:
                raise ArchiveError(f"{golden / name}: not made yet; npattn golden --suite goes on")
            if hash_file(golden / name) != entry.sha256:
                raise ArchiveError(f"{golden / name}: missing, or altered: {MANIFEST} has another sha256")
            if place is None:
                yield Verdict(str(golden / name), None)
            else:
                yield judge_results(load(golden / name), arguments, str(golden / name), str(place))
        except (ArchiveError, OSError) as error:
            yield Verdict(str(golden / name), None if place is None else str(place), error=describe_error(error))
        finally:
            progress("")


def find_places(results: Path, entries: dict[str, Entry]) -> dict[str, Path]:
    """Find each case's results in a folder, which may hold none besides."""
    found: dict[str, Path] = {}
    for path in sorted(results.iterdir()):
        if path.name.startswith("."):
            continue
        name = f"{path.name}.npz" if path.is_dir() else path.name
        if name not in entries:
            some = min(entries, default="NAME.npz")
            meant = did_you_mean(name, entries, 0.6) or (
                f"; expected results of cases alone, each as a file or a folder of its name: {results / some} or "
                f"{results / Path(some).stem}/output.npy"
            )
            raise UsageError(f"{path} is named as no case of the suite{meant}")
        if name in found:
            raise UsageError(f"{path} and {found[name]} are both results of {name}; expected one of them")
        found[name] = path
    if not found:
        raise UsageError(f"{results} holds no results; expected NAME.npz or NAME/ for each NAME.npz of the suite")
    return found


def has_passed(verdict: Verdict, all_required: bool) -> bool:
    """Tell whether a case has passed; one without results has where not all are required."""
    if verdict.report is None:
        return not (verdict.error or all_required)
    return verdict.report.passed


def write_report(report: Comparison | None) -> list[str]:
    """Write what was found of one case, line by line."""
    lines = []
    for line in str(report).splitlines():
        details = line.startswith("  ")
        lines += textwrap.wrap(line, 80, subsequent_indent="    ") if details else [line]
    return lines


def write_verdict(verdict: Verdict) -> list[str]:
    """Write the report of one case, and what it looks like."""
    return [*write_report(verdict.report), *([] if verdict.diagnosis is None else verdict.diagnosis.lines(MORE))]


def write_suite(found: list[Verdict], all_required: bool) -> list[str]:
    """Write what was found of a suite: a line for each case, and the report of those that are wrong."""
    lines: list[str] = []
    for verdict in found:
        name = Path(verdict.golden).name
        if verdict.error:
            lines.append(f"{name}  BAD FILE: {verdict.error}")
        elif verdict.report is None:
            lines.append(f"{name}  {'NOT GIVEN' if all_required else 'not given'}")
        elif verdict.report.passed:
            lines.append(f"{name}  ok")
        else:
            kind = "INCOMPLETE" if is_incomplete(verdict.report) else "WRONG"
            lines += [f"{name}  {kind}", *(f"  {line}" for line in write_verdict(verdict))]
    given = [verdict.report for verdict in found if verdict.report is not None]
    passed = sum(report.passed for report in given)
    incomplete = sum(map(is_incomplete, given))
    bad = sum(bool(verdict.error) for verdict in found)
    counts = [f"{passed} of {len(found)} cases passed", f"{len(given) - passed - incomplete} wrong"]
    counts += [f"{incomplete} incomplete"] if incomplete else []
    counts += [f"{len(found) - len(given) - bad} not given"] + ([f"{bad} with a bad file"] if bad else [])
    return [*lines, ", ".join(counts)]


def is_incomplete(report: Comparison) -> bool:
    """Tell whether a case has failed for nothing but results that are missing."""
    return not report.passed and all(judgement.passed for judgement in report.judgements.values())


def to_json(verdict: Verdict, all_required: bool) -> dict[str, Any]:
    """Say in JSON's terms what was found of one case; what is no finite number is null there."""
    report = verdict.report
    return {
        "golden": verdict.golden,
        "results": verdict.results,
        "passed": has_passed(verdict, all_required),
        "error": verdict.error or None,
        "missing": None if report is None else list(report.missing),
        "first_wrong": None if report is None else report.first_wrong,
        "begins": None if report is None else unfold(report.begins) or None,
        "order": None if report is None else report.order or None,
        **({} if verdict.diagnosis is None else diagnosis_to_json(verdict.diagnosis)),
        "judgements": None if report is None else judgements_to_json(report),
    }


def unfold(lines: list[str]) -> str:
    """Write statements on one line, of each of which all lines but the first are indented.

    Examples
    --------
    >>> unfold(["begins in", "  (1)", "or in (2)"])
    'begins in (1); or in (2)'
    """
    return "".join(f" {line.strip()}" if line.startswith(" ") else f"; {line}" for line in lines).removeprefix("; ")


def diagnosis_to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Say in JSON's terms which mistakes wrong results look like."""
    near = diagnosis.nearest
    return {
        "suspects": [suspect_to_json(one) for one in diagnosis],
        "alike": diagnosis.alike,
        "sure": diagnosis.sure,
        "nearest": None if near is None else suspect_to_json(near),
        "hints": list(diagnosis.hints),
        "complete": diagnosis.complete,
        "untried": diagnosis.untried or None,
        "unfinished": diagnosis.what_is_left(MORE) or None,
        "blurred": list(diagnosis.blurred),
    }


def suspect_to_json(suspect: Suspect) -> dict[str, Any]:
    """Say in JSON's terms what a suspect is: each of its mistakes, and the results that it explains."""
    mistakes = [
        {"primitive": one.primitive or None, "mistake": one.name, "way": one.way, "step": step or None}
        for one, step in zip(suspect.mistakes, suspect.steps, strict=True)
    ]
    distance = suspect.distance if math.isfinite(suspect.distance) else None
    return {"name": suspect.name, "mistakes": mistakes, "results": list(suspect.results), "distance": distance}


def judgements_to_json(report: Comparison) -> list[dict[str, Any]]:
    """Say in JSON's terms what was found of each result, and how a wrong one reads."""
    return [judgement_to_json(one) | {"reading": report.readings.get(name)} for name, one in report.judgements.items()]


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    """Say in JSON's terms what was found of one result."""
    numbers = {
        name: float(getattr(judgement, name))
        for name in ("worst", "worst_limit", "rms", "rms_limit", "outside", "expected", "got", "unit")
    }
    return {
        "name": judgement.name,
        "passed": judgement.passed,
        "trouble": judgement.trouble or None,
        **{name: number if math.isfinite(number) else None for name, number in numbers.items()},
        "where": [int(index) for index in judgement.where],
        "unjudged": int(judgement.unjudged),
        "reason": judgement.reason or None,
        "zeros_pass": judgement.zeros_pass,
    }
