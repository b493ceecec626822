"""What is said of a suite, while it is made and afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Progress", "SuiteReport"]


class Progress(NamedTuple):
    """How far a suite is.

    Attributes
    ----------
    done, total, failed : int
        Recipes, of which `done` counts those that failed too.
    name : str
        The last one's file.
    """

    done: int
    total: int
    failed: int
    name: str


@dataclass
class SuiteReport:
    """What has become of a suite's recipes. As text, a summary that names those that failed.

    Attributes
    ----------
    folder : pathlib.Path
    made, kept : list of str
        Names of files that were made now, and of those that an earlier run made.
    failed : dict of str
        Why a recipe has no file, by the name that it would have.
    """

    folder: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every recipe has its file."""
        return not self.failed

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        counts = f"{len(self.made)} made, {len(self.kept)} kept, {len(self.failed)} failed"
        return "\n".join([f"{self.folder}: {counts}", *(f"  {name}: {why}" for name, why in self.failed.items())])
