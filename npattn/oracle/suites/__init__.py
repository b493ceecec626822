"""Suites: many golden files in one folder, made on as many machines as there are, and the manifest that lists them."""

from npattn.oracle.suites.keeping import keep_case
from npattn.oracle.suites.making import hash_file, name_files, suite
from npattn.oracle.suites.manifest import MANIFEST, Entry, read_manifest
from npattn.oracle.suites.reports import Progress, SuiteReport

__all__ = [
    "MANIFEST",
    "Entry",
    "Progress",
    "SuiteReport",
    "hash_file",
    "keep_case",
    "name_files",
    "read_manifest",
    "suite",
]
