"""Whether the files of a data set are still those that a run began with."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ranker_data.layout import SPLITS
from ranker_data.reader import DataError, list_parts
from ranker_data.schema import SCHEMA_FILE

_THREADS = 16
# a Parquet file ends in its footer, the footer's length and four letters
_END_BYTES = 8


def fingerprint_files(root: Path) -> dict[str, str]:
    """Returns size and a hash of the footer of every file, and of the schema.

    A footer has the place, size and statistics of every column of every row group, so that other
    rows have another one. Names are relative: a data set may be moved or copied.

    Raises:
        DataError: a file cannot be read.
    """
    paths = [root / SCHEMA_FILE]
    for folder in ("behaviors", *(f"samples/{split}" for split in SPLITS)):
        paths += list_parts(root / folder)
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        marks = list(pool.map(_mark, paths))
    return {str(path.relative_to(root)): mark for path, mark in zip(paths, marks, strict=True)}


def _mark(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _END_BYTES, 0))
            length = int.from_bytes(file.read(4), "little") + _END_BYTES
            # a schema is text, all of which counts
            file.seek(max(size - length, 0) if path.suffix == ".parquet" else 0)
            return f"{size}:{hashlib.sha256(file.read()).hexdigest()[:32]}"
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def check_same_files(found: Mapping[str, str], expected: Mapping[str, str], when: str) -> None:
    """Compares two fingerprints.

    Args:
        found: now.
        expected: then.
        when: what "then" is, for the message.

    Raises:
        DataError: names every file that is new, missing or changed.
    """
    changed = [name for name in found if name in expected and found[name] != expected[name]]
    problems = [f"{name} changed" for name in changed]
    problems += [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is new" for name in found if name not in expected]
    if problems:
        listed = "\n  ".join(problems)
        raise DataError(
            f"the data is not what it was {when}, {len(problems)} difference(s):\n  {listed}\n"
            "put the files back, or begin a new run (another name) on the new data"
        )


def check_run_files(path: Path, found: Mapping[str, str], *, write: bool) -> None:
    """Compares the files with those that a run began with, which `path` remembers.

    Args:
        path: JSON file of the run.
        found: fingerprint of now.
        write: remember it if the run begins now.

    Raises:
        DataError: names every file that is new, missing or changed.
    """
    if path.is_file():
        check_same_files(found, json.loads(path.read_text(encoding="utf-8")), "when the run began")
    elif write:
        beside = path.with_suffix(".partial")
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
