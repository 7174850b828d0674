"""The output folder: written beside its final place and moved there when it is complete."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ranker_data.layout import STATS_FILE


def check_output(out: Path, digest: str) -> None:
    """Checks that `out` is free, or holds the output of the same preparation.

    Raises:
        ValueError: something else is there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    stats = out / STATS_FILE
    found = None
    if stats.is_file():
        with contextlib.suppress(json.JSONDecodeError, AttributeError):
            found = json.loads(stats.read_text(encoding="utf-8")).get("preparation")
    if found != digest:
        what = (
            "the output of another preparation"
            if found
            else "something that is not a prepared data set"
        )
        raise ValueError(
            f"{out} already holds {what}; to replace it, delete that folder first, or choose "
            "another out"
        )


@contextlib.contextmanager
def staged_output(out: Path, digest: str) -> Iterator[Path]:
    """Gives an empty folder beside `out`, which takes the place of `out` when the block succeeds.

    Args:
        out: final place; an earlier output of the same preparation is replaced.
        digest: fingerprint of the preparation.

    Raises:
        ValueError: `out` holds something else, or cannot be written.
    """
    check_output(out, digest)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}); set out=<a folder you may write to>"
        ) from error
    try:
        # mkdtemp makes private folders; a data set is as public as its parent allows
        content = staging / "content"
        content.mkdir()
        yield content
        check_output(out, digest)
        if out.exists():
            out.rename(staging / "replaced")
        content.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
