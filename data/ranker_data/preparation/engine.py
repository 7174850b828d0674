"""The embedded SQL engine with bounded memory."""

from pathlib import Path

import duckdb


def connect(*, memory_limit: str, num_threads: int, spill: Path) -> duckdb.DuckDBPyConnection:
    """Returns an engine without a database.

    Args:
        memory_limit: such as "4GB"; what does not fit is spilled.
        num_threads: number of threads.
        spill: folder for what is spilled; the engine makes it when needed.

    Raises:
        ValueError: the engine does not understand a setting.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "threads": num_threads,
        "temp_directory": str(spill),
        # the order of rows is always given by sorting; not keeping another one saves memory
        "preserve_insertion_order": "false",
    }
    try:
        return duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise ValueError(
            f"memory_limit ({memory_limit!r}) must be like '4GB' and num_threads ({num_threads}) "
            f"at least 1: {error}"
        ) from error
