"""fickling's check of one file, run by its own Python, on what its command takes from a repository: of a zip the
pickles in it, and a file that is a pickle by its name or by its bytes. Exit code 1: it finds it unsafe; 2: it could
not read it, or takes it for no pickle; 0: neither."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import PurePath

from fickling.analysis import Severity
from fickling.fickle import StackedPickle
from fickling.loader import ScanResult, scan_file, scan_zip_archive

NAMED = {".bin", ".pkl", ".pickle", ".pt", ".pth"}


def main() -> int:
    """Check the file and say so by the exit code."""
    results = check(sys.argv[1])
    if any(found.severity > Severity.LIKELY_SAFE for one in results for found in one.results):
        return 1
    return 2 if not results or any(one.errors for one in results) else 0


def check(path: str) -> list[ScanResult]:
    if zipfile.is_zipfile(path):
        return list(scan_zip_archive(path, graceful=True, json_output_path=os.devnull).values())
    if PurePath(path).suffix.lower() in NAMED or is_pickle(path):
        return [scan_file(path, graceful=True, json_output_path=os.devnull)]
    return []


def is_pickle(path: str) -> bool:
    with open(path, "rb") as file:
        try:
            return bool(StackedPickle.load(file, fail_on_decode_error=True))
        except Exception:  # noqa: BLE001 - as its own test for this does
            return False


if __name__ == "__main__":
    sys.exit(main())
