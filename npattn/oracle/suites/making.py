"""Many golden files in a folder: made on any executor, and gone on with where an earlier run stopped."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from npattn.checks import require_booleans
from npattn.files import check_path, one_line, whole_file
from npattn.module import Module
from npattn.oracle.golden_files import write
from npattn.oracle.recipes import Recipe, make
from npattn.oracle.suites.manifest import (
    MANIFEST,
    Entry,
    describe_recipe,
    find_versions,
    identify,
    read_manifest,
    write_manifest,
)
from npattn.oracle.suites.reports import Progress, SuiteReport
from npattn.oracle.suites.sources import UNREAD, hash_system
from npattn.processes import interrupts_put_off
from npattn.wording import brief, describe_type

__all__ = ["hash_file", "name_files", "suite"]

IN_FLIGHT = 256
"""Recipes that an executor is given at once: more than its workers are, and fewer than would fill the memory."""
MANIFEST_SECONDS = 1.0
"""How often the manifest is written. What was made since is made again after a crash."""
MAX_NAME_LENGTH = 120
STEPS = "steps"
"""What the manifest's recipe says of a file that holds steps."""
SYSTEM = "system"
"""What the manifest's versions say of the code of a system of someone's own."""
MAX_ERROR_LENGTH = 500


class Made(NamedTuple):
    """A golden file's bytes, and what made them, perhaps on another machine."""

    data: bytes
    versions: dict[str, str]


def clean(id: str) -> str:
    """Make of an id what a file may be called, without its suffix."""
    return re.sub(r"[^\w.,=-]+", "_", id)[:MAX_NAME_LENGTH]


def classes_of(module: Module) -> list[type]:
    """List the classes of a module and of those within it."""
    parts = [getattr(module, one.name) for one in fields(module)]
    return [type(module), *(found for part in parts if isinstance(part, Module) for found in classes_of(part))]


def suite(
    recipes: Iterable[Recipe],
    folder: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    steps: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SuiteReport:
    """Make golden files of many recipes in a folder, with a manifest: names, recipes, hashes and versions.

    Stopped at any moment and called again, it goes on where it was: a file is kept if the manifest has its hash, the
    same recipe, and the same npattn and NumPy; of a system of your own, the same code too. Files are whole or absent.
    ``derivations/golden_files.md`` describes the folder.

    Parameters
    ----------
    recipes : iterable of Recipe
        As `cases` lists them.
    folder : path
        Made if it is not there. Files in it of which its manifest says nothing are never touched.
    executor : concurrent.futures.Executor, optional
        Where cases are made: processes, Dask's ``client.get_executor()``, … Files are written here, by the caller's
        process. By default cases are made here as well, one after the other.
    steps : bool, default False
        Whether the files hold the steps as well. One that is there without them is made again; one that is there with
        them is kept in any case.
    progress : callable, optional
        Called with a `Progress` after each recipe.

    Returns
    -------
    SuiteReport
        A recipe that fails is named there, and stops none of the others.

    Raises
    ------
    TypeError
        If an argument is none of these.
    ValueError
        If the folder has a manifest that is none.
    OSError
        If the folder can't be written to.

    Examples
    --------
    >>> import tempfile
    >>> from npattn.oracle import cases
    >>> recipes = cases("eca", ["float16"], kinds=["ties", "zeros"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = suite(recipes, folder)
    ...     again = suite(recipes, folder)
    >>> report.made, len(again.kept)
    (['eca-float16-3x32x7x9-ties.npz', 'eca-float16-3x32x7x9-zeros.npz'], 2)
    """
    listed = read_recipes(recipes)
    require_executor(executor)
    require_booleans("suite", steps=steps)
    if progress is not None and not callable(progress):
        raise TypeError(f"suite: progress is {describe_type(progress)}; expected a function of a Progress")
    if not isinstance(folder, str | os.PathLike) or isinstance(os.fspath(folder), bytes):
        raise TypeError(f"suite: folder={brief(folder)} is {describe_type(folder)}; expected a path, as text or a Path")
    target = check_path(folder)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is no folder; expected one, or a name that is free")
    target.mkdir(parents=True, exist_ok=True)
    entries = read_manifest(target) if (target / MANIFEST).exists() else {}
    run = Run(target, entries, SuiteReport(target), len(listed), steps, progress)
    open_recipes = run.plan(listed)
    try:
        write_manifest(target, entries)
        if executor is None:
            for name, recipe in open_recipes.items():
                run.finish(name, functools.partial(make_file, recipe, steps=steps))
        else:
            run.make_on(executor, open_recipes)
    finally:
        write_manifest(target, entries)
    return run.report


def name_files(recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """Name the files that `suite` makes of recipes in a new folder, and make none.

    Examples
    --------
    >>> from npattn.oracle import cases
    >>> list(name_files(cases("eca", ["float16"], kinds=["ties", "zeros"])))
    ['eca-float16-3x32x7x9-ties.npz', 'eca-float16-3x32x7x9-zeros.npz']
    """
    run = Run(Path(), {}, SuiteReport(Path()), 0, steps=False, progress=None)
    found = {}
    for recipe in read_recipes(recipes):
        described = describe_recipe(recipe)
        name = run.name_file(recipe.id, described, recipe.module)
        run.entries[name] = Entry(name, recipe.id, described, None, None, {}, None)
        found[name] = recipe
    return found


def read_recipes(recipes: Any) -> list[Recipe]:
    """Return what is given as a list; refuse what holds anything but recipes."""
    example = "expected recipes, as npattn.oracle.cases('eca') lists them"
    if isinstance(recipes, (str, Recipe)) or not isinstance(recipes, Iterable):
        raise TypeError(f"suite: recipes={brief(recipes)} is {describe_type(recipes)}; {example}")
    listed = list(recipes)
    for one in listed:
        if not isinstance(one, Recipe):
            raise TypeError(f"suite: recipes holds {brief(one)}, {describe_type(one)}; {example}")
    return distinct(listed)


def distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Leave out what stands there twice; of what has no hash, as it holds a list, what is the same object."""
    found: dict[Any, Recipe] = {}
    for one in recipes:
        try:
            found.setdefault(one, one)
        except TypeError:
            found.setdefault(id(one), one)
    return list(found.values())


def require_executor(executor: Any) -> None:
    """Refuse what nothing can be submitted to; a class, too, of which there is no executor yet."""
    if isinstance(executor, type):
        name = executor.__qualname__
        raise TypeError(f"suite: executor is the class {executor.__module__}.{name}; expected one of it: {name}(...)")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"suite: executor is {describe_type(executor)}; expected a concurrent.futures.Executor")


def make_file(recipe: Recipe, *, steps: bool) -> Made:
    """Make a case and its file's bytes, wherever this runs."""
    file = io.BytesIO()
    write(
        make.__wrapped__(recipe, steps=steps), file, steps=steps
    )  # the cache of those made last would hold large ones
    return Made(file.getvalue(), find_versions())


@dataclass
class Run:
    """One call of `suite`."""

    folder: Path
    entries: dict[str, Entry]
    report: SuiteReport
    total: int
    steps: bool
    progress: Callable[[Progress], None] | None
    written: float = field(default_factory=time.monotonic)
    classes: dict[str, list[type]] = field(default_factory=dict)

    def plan(self, recipes: list[Recipe]) -> dict[str, Recipe]:
        """Give each recipe its file's name; keep what is there; return the others by name."""
        found: dict[str, Recipe] = {}
        versions = find_versions()
        for recipe in recipes:
            id = type(recipe.module).__name__
            try:
                id = recipe.id
                described = describe_recipe(recipe)
                own = hash_system(recipe.module)
            except Exception as error:  # whatever a system of someone's own raises
                self.fail(f"{clean(id)}.npz", describe_failure(error))
                continue
            name, made_by = self.name_file(id, described, recipe.module), versions | ({SYSTEM: own} if own else {})
            holding = described | ({STEPS: True} if self.steps else {})
            known = self.entries.get(name)
            path = self.folder / name
            if known is None and os.path.lexists(path):
                self.fail(name, f"{path} is there already, and {MANIFEST} says nothing of it: move it away")
            elif known is not None and self.holds(known, made_by) and known.sha256 == hash_file(path):
                self.report.kept.append(name)
                self.tell(name)
            else:
                self.entries[name] = Entry(name, id, holding, None, None, made_by, None)
                found[name] = recipe
        return found

    def holds(self, known: Entry, versions: dict[str, str]) -> bool:
        """Tell whether the manifest says of a file that it was made by these versions, and with what is asked for."""
        enough = STEPS in known.recipe or not self.steps
        same = known.versions == versions and versions.get(SYSTEM) != UNREAD
        return same and known.sha256 is not None and enough

    def name_file(self, id: str, described: dict[str, Any], module: Module) -> str:
        """Return the name of a recipe's file: its id, with some of its hash where another recipe's has that name.

        Two classes may have one name: then the hash is of where they come from, too.
        """
        cleaned = clean(id)
        names = [f"{cleaned}.npz", f"{cleaned}-{identify(described)[:12]}.npz"]
        taken = {name.casefold(): entry for name, entry in self.entries.items()}
        other = taken.get(names[0].casefold())
        same = other is None or {name: value for name, value in other.recipe.items() if name != STEPS} == described
        name, classes = names[0] if same else names[1], classes_of(module)
        origin = [f"{one.__module__}.{one.__qualname__}" for one in classes]
        number = 0
        while self.classes.setdefault(name, classes) != classes:  # a function may make several classes of one origin
            told = {"classes": origin} | ({"number": number} if number else {})
            name, number = f"{cleaned}-{identify(described | told)[:12]}.npz", number + 1
        return name

    def make_on(self, executor: Executor, recipes: dict[str, Recipe]) -> None:
        """Make files on an executor, a number of them at a time."""
        waiting = list(reversed(recipes.items()))
        flying: dict[Future[Made], str] = {}
        # Not `concurrent.futures.wait`, which an interrupt may keep from unlocking the futures that it looks at.
        finished: SimpleQueue[Future[Made]] = SimpleQueue()
        try:
            while waiting or flying:
                while waiting and len(flying) < IN_FLIGHT:
                    name, recipe = waiting.pop()
                    try:
                        with interrupts_put_off():
                            future = executor.submit(functools.partial(make_file, steps=self.steps), recipe)
                            flying[future] = name
                            future.add_done_callback(finished.put)
                    except Exception as error:  # a pool that has broken, or a recipe that can't be sent
                        self.fail(name, describe_failure(error))
                if flying:
                    future = finished.get()
                    self.finish(flying.pop(future), future.result)
        finally:
            with interrupts_put_off():
                for future in flying:
                    future.cancel()

    def finish(self, name: str, result: Callable[[], Made]) -> None:
        """Write a file, or note why there is none."""
        try:
            made = result()
            here = {of: version for of, version in self.entries[name].versions.items() if of != SYSTEM}
            if made.versions != here:
                raise ValueError(
                    f"made by {made.versions}, where the caller has {here}: install the same on each machine"
                )
        except (Exception, CancelledError) as error:  # whatever the system or a worker raises
            self.fail(name, describe_failure(error))
            return
        with whole_file(self.folder / name, force=True) as temporary:
            temporary.write_bytes(made.data)
        self.entries[name] = replace(
            self.entries[name], sha256=hashlib.sha256(made.data).hexdigest(), bytes=len(made.data)
        )
        self.report.made.append(name)
        self.tell(name)

    def fail(self, name: str, why: str) -> None:
        """Note that a recipe has failed."""
        self.report.failed[name] = why
        if name in self.entries and self.entries[name].sha256 is None:
            self.entries[name] = replace(self.entries[name], error=why)
        self.tell(name)

    def tell(self, name: str) -> None:
        """Say how far it is, and write the manifest now and then."""
        report = self.report
        if time.monotonic() - self.written > MANIFEST_SECONDS:
            write_manifest(self.folder, self.entries)
            self.written = time.monotonic()
        if self.progress is not None:
            done = len(report.made) + len(report.kept) + len(report.failed)
            self.progress(Progress(done, self.total, len(report.failed), name))


def hash_file(path: Path) -> str | None:
    """Return the hash of a regular file; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_failure(error: BaseException) -> str:
    """Say on one line what was raised; of what is no complaint of ours, the kind as well; and its notes."""
    kind = "" if isinstance(error, (ValueError, TypeError, OSError)) else f"{type(error).__name__}: "
    told = [f"{kind}{error}", *getattr(error, "__notes__", [])]
    if "pickle" in str(error):  # of kinds that differ from version to version
        told.append("other processes need what stands in a module by a name; without that leave out executor")
    return one_line("; ".join(told), MAX_ERROR_LENGTH)
