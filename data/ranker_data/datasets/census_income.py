"""Census income (UCI KDD 1999), the two-task benchmark of MMoE (Ma et al. 2018).

One person a row, without times and histories. The publisher's test file is cut at random into
validation and test, as in the paper; a file alone is cut at random.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import RawRelations, convert, count_rows
from ranker_data.datasets.nominal_time import random_moment_sql
from ranker_data.datasets.original_files import find_file, find_optional_file, table_sql
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.sql import quote
from ranker_data.schema import Field, Label, Schema, Task

_DENSE = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_employer",
    "weeks_worked",
)
_NAMES = [
    "age",
    "class_of_worker",
    "industry_code",
    "occupation_code",
    "education",
    "wage_per_hour",
    "enrolled",
    "marital_status",
    "industry",
    "occupation",
    "race",
    "hispanic_origin",
    "sex",
    "union_member",
    "unemployment_reason",
    "employment",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "tax_filer",
    "previous_region",
    "previous_state",
    "household_detail",
    "household_summary",
    "instance_weight",
    "migration_msa",
    "migration_region",
    "migration_within_region",
    "same_house",
    "migration_sunbelt",
    "num_employer",
    "family_under_18",
    "father_country",
    "mother_country",
    "country",
    "citizenship",
    "own_business",
    "veteran_form",
    "veteran_benefits",
    "weeks_worked",
    "year",
    "income",
]
# labels, and the publisher's weight of a person, which the benchmark leaves out
_NO_FEATURES = ("marital_status", "instance_weight", "income")
_FEATURES = tuple(name for name in _NAMES if name not in _NO_FEATURES)


class CensusIncomeConverter:
    """Converts `census-income.data` and `census-income.test`, or one file of their columns.

    labels
        high_income      more than 50,000 dollars
        never_married    marital status; it is no feature
    fields
        amounts as ln(1 + x), age and weeks as they are, all others ids, missing ("?") with id 0
    """

    def __init__(
        self,
        *,
        seed: int = 2026,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        num_parts: int = 4,
    ):
        """Sets the definitions.

        Args:
            seed: of the random cut.
            valid_fraction: share of the rows for validation, if there is one file.
            test_fraction: share of the rows for testing, if there is one file.
            num_parts: number of co-partitioned files.
        """
        self._seed = seed
        self._split = TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction)
        self._num_parts = num_parts

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`, or the file `source`."""
        suffixes = (".data", ".data.gz", ".test", ".parquet")
        paths = [find_file(source, ["census-income"], suffixes)]
        if source is not None and source.is_dir():
            test = find_optional_file(source, ["census-income"], (".test", ".test.gz"))
            paths += [test] if test is not None and test != paths[0] else []
        settings = {
            "converter": "census_income",
            "seed": self._seed,
            "num_files": len(paths),
            "split": [self._split.valid_fraction, self._split.test_fraction],
            "num_parts": self._num_parts,
        }
        return convert(
            lambda connection: self._build(connection, paths),
            out=out,
            settings=settings,
            engine=engine,
        )

    def _build(self, connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> RawRelations:
        blocks = []
        for block, path in enumerate(paths):
            person = f"'{block}|' || CAST(row_number() OVER () AS VARCHAR)"
            blocks.append(
                f"SELECT *, {person} AS person, {block} AS block FROM "
                f"{_named_sql(connection, path)}"
            )
        connection.execute(f"CREATE TABLE people AS {' UNION ALL '.join(blocks)}")
        moments = [
            f"WHEN {block} THEN {random_moment_sql('person', seed=self._seed, block=block)}"
            for block in range(len(paths))
        ]
        connection.execute(
            f"""
            CREATE VIEW sample AS
            SELECT person AS "user", CASE block {" ".join(moments)} END AS "time",
                CASE WHEN income LIKE '%50000+%' THEN 1 ELSE 0 END AS high_income,
                CASE WHEN marital_status = 'Never married' THEN 1 ELSE 0 END AS never_married,
                {", ".join(_feature_sql(name) for name in _FEATURES)}
            FROM people
            """
        )
        split = self._split
        if len(paths) == 2:
            rows = [count_rows(connection, "people", f"block = {block}") for block in (0, 1)]
            held_out = rows[1] / sum(rows)
            split = TimeSplit(valid_fraction=held_out / 2, test_fraction=held_out / 2)
        return RawRelations(plan=_plan(split, self._num_parts))


def _named_sql(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    """The rows of a file under our names; the columns have none of their own."""
    relation = table_sql(path, names=_NAMES, quoted=False)
    if path.suffix != ".parquet":
        return f"(SELECT {', '.join(f'trim({n}) AS {n}' for n in _NAMES)} FROM {relation})"
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    if len(described) != len(_NAMES):
        raise ValueError(f"{path} has {len(described)} columns, must have {len(_NAMES)}")
    columns = ", ".join(
        f"trim(CAST({quote(row[0])} AS VARCHAR)) AS {name}"
        for row, name in zip(described, _NAMES, strict=True)
    )
    return f"(SELECT {columns} FROM {relation})"


def _feature_sql(name: str) -> str:
    if name not in _DENSE:
        return f"nullif({name}, '?') AS {name}"
    value = f"CAST({name} AS DOUBLE)"
    return f"{value} AS {name}" if name in ("age", "weeks_worked") else f"ln(1 + {value}) AS {name}"


def _plan(split: TimeSplit, num_parts: int) -> Preparation:
    return Preparation(
        name="census_income",
        time_unit="s",
        fields=tuple(
            Field(name=name, kind="dense")
            if name in _DENSE
            else Field(name=name, kind="id", table=name)
            for name in _FEATURES
        ),
        behaviors=(),
        labels=(Label(name="high_income"), Label(name="never_married")),
        tasks=(
            Task(name="high_income", label="high_income"),
            Task(name="never_married", label="never_married"),
        ),
        split=split,
        num_parts=num_parts,
    )
