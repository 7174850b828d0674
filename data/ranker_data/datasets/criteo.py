"""Criteo display advertising (Kaggle 2014): 13 counts and 26 hashed categories, in time order.

There are no users, no times and no histories: every row is its own user, and the row's number is
its moment, because the publisher ordered the file by time.
"""

from pathlib import Path

from ranker_data.datasets.conversion import RawTable, convert_table
from ranker_data.datasets.nominal_time import NOMINAL_START
from ranker_data.datasets.original_files import find_file, table_sql
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Task

_COUNTS = tuple(f"I{number}" for number in range(1, 14))
_CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
COLUMNS = ("label", *_COUNTS, *_CATEGORIES)
_TABBED = (".txt", ".txt.gz", ".tsv", ".tsv.gz")


class CriteoConverter:
    """Converts `train.txt` (tabs, no header), or a CSV or Parquet file with the usual names.

    label
        click        column `label`
    fields
        I1 ...       sign(x) ln(1 + |x|); 0 where the value is missing
        I1_known ... 1 where the value is there, 0 where it is missing
        C1 ...       ids; missing and rare values have id 0
    """

    def __init__(
        self,
        *,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_count: int = 10,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            valid_fraction: share of the rows for validation.
            test_fraction: share of the rows for testing, the last ones.
            min_count: categories seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        self._plan = _plan(
            TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            min_count,
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the file in `source`, or the file `source`."""
        path = find_file(source, ["train"], (*_TABBED, ".csv", ".csv.gz", ".parquet"))
        tabbed = path.name.endswith(_TABBED)
        relation = (
            table_sql(path, names=COLUMNS, delimiter="\t", quoted=False)
            if tabbed
            else table_sql(path)
        )
        missing = " OR ".join(f"{name} IS NULL" for name in _COUNTS)
        table = RawTable(
            path=path,
            relation=relation,
            columns=COLUMNS,
            sample_sql=_sample_sql(relation),
            counted={"rows_with_missing_counts": missing},
        )
        return convert_table(table, self._plan, out=out, engine=engine)


def _sample_sql(relation: str) -> str:
    counts = []
    for name in _COUNTS:
        value = f"CAST({name} AS DOUBLE)"
        counts.append(f"coalesce(sign({value}) * ln(1 + abs({value})), 0) AS {name}")
        counts.append(f"CASE WHEN {name} IS NULL THEN 0 ELSE 1 END AS {name}_known")
    return f"""
    SELECT row_number() OVER () AS "user", {NOMINAL_START} + row_number() OVER () AS "time",
        CAST(label AS BIGINT) AS click, {", ".join(counts)}, {", ".join(_CATEGORIES)}
    FROM {relation}
    """


def _plan(split: TimeSplit, min_count: int, num_parts: int) -> Preparation:
    return Preparation(
        name="criteo",
        time_unit="s",
        fields=(
            *(Field(name=name, kind="dense") for name in _COUNTS),
            *(Field(name=f"{name}_known", kind="dense") for name in _COUNTS),
            *(Field(name=name, kind="id", table=name) for name in _CATEGORIES),
        ),
        behaviors=(),
        labels=(Label(name="click"),),
        tasks=(Task(name="ctr", label="click"),),
        split=split,
        min_count=dict.fromkeys(_CATEGORIES, min_count),
        num_parts=num_parts,
    )
