"""What every data set converter offers, so that one script can prepare any of them."""

from pathlib import Path
from typing import Protocol

from ranker_data.preparation.engine import Engine
from ranker_data.schema import Schema


class DatasetConverter(Protocol):
    """Turns a data set in its original files into the event-log layout."""

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Writes the prepared data set.

        Args:
            source: folder with the original files; None for a simulated data set.
            out: folder of the prepared data set; it appears when everything is done.
            engine: SQL engine; DuckDB with its default resources if None. A simulator needs none.

        Returns:
            The schema that was written.
        """
        ...
