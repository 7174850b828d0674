"""Checks of raw events and samples: names, types, nulls, values, labels and time units."""

import dataclasses
import datetime
import difflib
import re

import duckdb

from ranker_data.preparation.plan import Preparation
from ranker_data.preparation.source import Source
from ranker_data.reader import DataError
from ranker_data.schema import Field, TimeUnit

_INTEGERS = "TINYINT|SMALLINT|INTEGER|BIGINT|UTINYINT|USMALLINT|UINTEGER"
_IDS = rf"{_INTEGERS}|UBIGINT|VARCHAR|BOOLEAN|ENUM\(.*\)"
_NUMBERS = rf"{_INTEGERS}|FLOAT|DOUBLE|BOOLEAN|DECIMAL\(.*\)"
_FAMILIES = {
    "integer": _INTEGERS,
    "id (integer or string)": _IDS,
    "list of ids": rf"({_IDS})\[\]",
    "number": _NUMBERS,
}
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_FIRST_YEAR, _LAST_YEAR = 1990, 2100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What must not happen: `bad` is an SQL condition, `columns` the SQL of the values to show."""

    column: str
    bad: str
    rule: str
    columns: str = ""


def quote(name: str) -> str:
    """Returns an SQL identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def check_columns(plan: Preparation, events: Source, samples: Source) -> None:
    """Checks that all columns are there with a usable type.

    Raises:
        DataError: lists every missing or wrongly typed column of both relations.
    """
    problems = []
    for source, fields in ((events, plan.behaviors), (samples, plan.fields)):
        expected = {"user": "id (integer or string)", "time": "integer"}
        expected.update({field.name: _family(field) for field in fields})
        optional = {"order": "integer"}
        if source is samples:
            truths = [label.truth for label in plan.labels] + [task.truth for task in plan.tasks]
            expected.update({label.name: "number" for label in plan.labels})
            expected.update({name: "number" for name in truths if name is not None})
            optional.update({"request": "id (integer or string)", "weight": "number"})
        optional = {name: family for name, family in optional.items() if name in source.columns}
        problems += _column_problems(source, expected | optional)
    if problems:
        raise DataError("cannot prepare the data:\n  " + "\n  ".join(problems))


def _family(field: Field) -> str:
    return {"id": "id (integer or string)", "ids": "list of ids", "dense": "number"}[field.kind]


def _column_problems(source: Source, expected: dict[str, str]) -> list[str]:
    problems = []
    for name, family in expected.items():
        if name not in source.columns:
            close = difflib.get_close_matches(name, list(source.columns), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(f"{source.name}: column {name!r} is missing{hint}")
        elif not re.fullmatch(_FAMILIES[family], source.columns[name]):
            found = source.columns[name]
            problems.append(
                f"{source.name}: column {name!r} has type {found}, must be a {family}; "
                "cast it first"
            )
    return problems


def rules_of(plan: Preparation, source: Source) -> list[Rule]:
    """Returns the rules for the values of one raw relation."""
    rules = [
        Rule(column="user", bad='"user" IS NULL', rule="every row needs a user; drop such rows"),
        Rule(column="time", bad='"time" IS NULL', rule="every row needs a time; drop such rows"),
        _time_rule(plan.time_unit),
    ]
    fields = plan.behaviors if source.name == "events" else plan.fields
    rules += [
        Rule(
            column=field.name,
            bad=f"{quote(field.name)} IS NULL OR {_not_finite(field.name)}",
            rule="a dense value must be finite and not null; fill it explicitly",
        )
        for field in fields
        if field.kind == "dense"
    ]
    if source.name == "samples":
        rules += _label_rules(plan)
        if "weight" in source.columns:
            bad = f'"weight" IS NULL OR CAST("weight" AS DOUBLE) < 0 OR {_not_finite("weight")}'
            rules.append(
                Rule(column="weight", bad=bad, rule="a weight must be finite and not negative")
            )
    return rules


def _not_finite(name: str) -> str:
    # NaN counts as larger than every number, and what a float32 cannot hold would become infinite
    return f"abs(CAST({quote(name)} AS DOUBLE)) > 3.4e38"


def _time_rule(unit: TimeUnit) -> Rule:
    first, last = (
        int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) * _TICKS[unit]
        for year in (_FIRST_YEAR, _LAST_YEAR)
    )
    return Rule(
        column="time",
        bad=f'"time" < {first} OR "time" >= {last}',
        rule=f"in unit {unit!r} a time of the years {_FIRST_YEAR} to {_LAST_YEAR} is in "
        f"[{first}, {last}); give the right time_unit (s, ms or us since 1970) or convert it",
    )


def _label_rules(plan: Preparation) -> list[Rule]:
    rules = []
    for label in plan.labels:
        value = f"CAST({quote(label.name)} AS DOUBLE)"
        rules.append(
            Rule(
                column=label.name,
                bad=f"{value} <> 0 AND {value} <> 1",
                rule="a label must be 0, 1 or null (undefined); turn grades into 0 and 1 first",
            )
        )
        if label.requires is not None:
            required = f"CAST({quote(label.requires)} AS DOUBLE)"
            rules.append(
                Rule(
                    column=label.name,
                    bad=f"{value} = 1 AND ({required} IS NULL OR {required} <> 1)",
                    rule=f"it may be 1 only where {label.requires!r} is 1; drop such rows or the "
                    "label's `requires`",
                    columns=f", {quote(label.requires)}",
                )
            )
    return rules


def check_values(
    connection: duckdb.DuckDBPyConnection, plan: Preparation, source: Source
) -> list[str]:
    """Checks the values of one raw relation in one scan.

    Returns:
        The rules that were checked, for the record.

    Raises:
        DataError: names every broken rule with its count, and the place and value of the first
            rows.
    """
    rules = rules_of(plan, source)
    counts = ", ".join(f"sum(CASE WHEN {rule.bad} THEN 1 ELSE 0 END)" for rule in rules)
    found = connection.execute(f"SELECT {counts} FROM raw_{source.name}").fetchall()
    problems = []
    for rule, count in zip(rules, found[0], strict=True):
        if not count:
            continue
        rows = source.first_rows(connection, quote(rule.column) + rule.columns, rule.bad)
        file, row, *values = rows[0]
        shown = ", ".join("null" if value is None else str(value) for value in values)
        problems.append(
            f"{file}: column {rule.column!r}, row {row} is {shown} ({count} such row(s)): "
            f"{rule.rule}"
        )
    if problems:
        raise DataError(f"cannot prepare the {source.name}:\n  " + "\n  ".join(problems))
    return [f"{source.name}.{rule.column}: {rule.rule}" for rule in rules]


def check_user_fields(connection: duckdb.DuckDBPyConnection, plan: Preparation) -> list[str]:
    """Checks that fields of side "user" are constant per user.

    Raises:
        DataError: names the field, a user and two of its values.
    """
    names = [field.name for field in plan.fields if field.side == "user"]
    for name in names:
        column = quote(name)
        rows = connection.execute(
            f"""
            SELECT "user", CAST(min({column}) AS STRING), CAST(max({column}) AS STRING)
            FROM raw_samples GROUP BY "user"
            HAVING count(DISTINCT {column}) + max(CASE WHEN {column} IS NULL THEN 1 ELSE 0 END) > 1
            ORDER BY 1 LIMIT 1
            """
        ).fetchall()
        for user, low, high in rows:
            raise DataError(
                f"samples: column {name!r} of user {user} is both {low} and {high} (or null); a "
                "field of side 'user' must be constant per user; give it side 'context'"
            )
    return [f"samples.{name}: constant per user" for name in names]
