"""Checks of raw events and samples: names, types, nulls, values, labels and time units."""

import dataclasses
import difflib
from collections.abc import Callable

import pyarrow as pa

from ranker_data.layout import weights_column
from ranker_data.preparation.engine import Session
from ranker_data.preparation.plan import Preparation
from ranker_data.preparation.source import Source
from ranker_data.preparation.sql import LARGEST_FLOAT, Dialect, quote, quote_text
from ranker_data.reader import DataError
from ranker_data.schema import Field, TimeUnit
from ranker_data.time_units import FIRST_YEAR, LAST_YEAR, time_range


def _is_integer(kind: pa.DataType) -> bool:
    # an int64 must hold every value
    return pa.types.is_integer(kind) and kind != pa.uint64()


def _is_id(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_id(kind.value_type)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_number(kind: pa.DataType) -> bool:
    floating = pa.types.is_float32(kind) or pa.types.is_float64(kind)
    return (
        floating or _is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal128(kind)
    )


def _is_list_of(is_element: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def is_list(kind: pa.DataType) -> bool:
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return listed and is_element(kind.value_type)

    return is_list


_FAMILIES: dict[str, Callable[[pa.DataType], bool]] = {
    "integer": _is_integer,
    "id (integer or string)": _is_id,
    "list of ids": _is_list_of(_is_id),
    "list of numbers": _is_list_of(_is_number),
    "number": _is_number,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What must not happen: `bad` is an SQL condition, `columns` the SQL of the values to show."""

    column: str
    bad: str
    rule: str
    columns: str = ""


def check_columns(plan: Preparation, events: Source, samples: Source) -> None:
    """Checks that all columns are there with a usable type.

    Raises:
        DataError: lists every missing or wrongly typed column of both relations.
    """
    problems = []
    for source, fields in ((events, plan.behaviors), (samples, plan.fields)):
        expected = {"user": "id (integer or string)", "time": "integer"}
        expected.update({field.name: _family(field) for field in fields})
        expected.update({weights_column(f): "list of numbers" for f in fields if f.weighted})
        optional = {"order": "integer"}
        if source is samples:
            truths = [label.truth for label in plan.labels] + [task.truth for task in plan.tasks]
            expected.update({label.name: "number" for label in plan.labels})
            expected.update({name: "number" for name in truths if name is not None})
            optional.update({"request": "id (integer or string)", "weight": "number"})
        optional = {
            name: family for name, family in optional.items() if name in source.schema.names
        }
        problems += _column_problems(source, expected | optional)
    if problems:
        raise DataError("cannot prepare the data:\n  " + "\n  ".join(problems))


def _family(field: Field) -> str:
    return {"id": "id (integer or string)", "ids": "list of ids", "dense": "number"}[field.kind]


def _column_problems(source: Source, expected: dict[str, str]) -> list[str]:
    problems = []
    for name, family in expected.items():
        if source.schema.names.count(name) > 1:
            problems.append(f"{source.name}: column {name!r} is there twice")
        elif name not in source.schema.names:
            close = difflib.get_close_matches(name, source.schema.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(f"{source.name}: column {name!r} is missing{hint}")
        elif twins := [
            other
            for other in source.schema.names
            if other != name and other.casefold() == name.casefold()
        ]:
            problems.append(
                f"{source.name}: column {name!r} is also there as {twins[0]!r}; names must differ "
                "in more than case"
            )
        elif not _FAMILIES[family](source.schema.field(name).type):
            problems.append(
                f"{source.name}: column {name!r} has type {source.schema.field(name).type}, must "
                f"be a {family}; cast it first"
            )
    return problems


def rules_of(plan: Preparation, source: Source, dialect: Dialect) -> list[Rule]:
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
            rule="a dense value must be finite and not null; give nulls.<field> a number for it",
        )
        for field in fields
        if field.kind == "dense" and field.name not in plan.nulls
    ]
    rules += [
        Rule(
            column=field.name,
            bad=f"{quote(field.name)} IS NULL",
            rule="nulls are errors in this field (nulls.<field>: error); fill or drop such rows",
        )
        for field in fields
        if plan.nulls.get(field.name) == "error"
    ]
    rules += [_weights_rule(field, dialect) for field in fields if field.weighted]
    texts = [
        field.name
        for field in fields
        if field.kind == "id" and pa.types.is_string(source.schema.field(field.name).type)
    ]
    rules += [
        Rule(
            column=name,
            bad=f"{quote(name)} IS NOT NULL AND {dialect.not_text.format(quote(name))}",
            rule="an id must be UTF-8; encode it, as hexadecimal digits for example",
        )
        for name in texts
    ]
    if source.name == "samples":
        rules += _label_rules(plan)
        if "weight" in source.schema.names:
            bad = f'"weight" IS NULL OR CAST("weight" AS DOUBLE) < 0 OR {_not_finite("weight")}'
            rules.append(
                Rule(column="weight", bad=bad, rule="a weight must be finite and not negative")
            )
    return rules


def _not_finite(name: str) -> str:
    # NaN counts as larger than every number
    return f"abs(CAST({quote(name)} AS DOUBLE)) > {LARGEST_FLOAT}"


def _weights_rule(field: Field, dialect: Dialect) -> Rule:
    ids, weights = quote(field.name), quote(weights_column(field))
    lengths = [f"coalesce({dialect.list_length.format(name)}, 0)" for name in (ids, weights)]
    wrong = "x IS NULL OR x < 0 OR abs(CAST(x AS DOUBLE)) > " + LARGEST_FLOAT
    return Rule(
        column=weights_column(field),
        bad=f"{lengths[0]} <> {lengths[1]} OR {dialect.list_any.format(weights, wrong)}",
        rule=f"every id of {field.name!r} needs a weight that is finite and not negative",
        columns=f", {ids}",
    )


def _time_rule(unit: TimeUnit) -> Rule:
    first, last = time_range(unit)
    return Rule(
        column="time",
        bad=f'"time" < {first} OR "time" >= {last}',
        rule=f"in unit {unit!r} a time of the years {FIRST_YEAR} to {LAST_YEAR} is in "
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


def check_values(session: Session, plan: Preparation, source: Source) -> list[str]:
    """Checks the values of one raw relation in one scan.

    Returns:
        The rules that were checked, for the record.

    Raises:
        DataError: names every broken rule with its count, and the place and value of the first
            row.
    """
    rules = rules_of(plan, source, session.dialect)
    counts = ", ".join(f"sum(CASE WHEN {rule.bad} THEN 1 ELSE 0 END)" for rule in rules)
    (found,) = session.rows(f"SELECT {counts} FROM raw_{source.name}")
    problems = []
    for rule, count in zip(rules, found, strict=True):
        if not count:
            continue
        ((file, row, *values),) = session.rows(
            f"SELECT _file, _row, {quote(rule.column)}{rule.columns} FROM {source.located} "
            f"WHERE {rule.bad} ORDER BY 1, 2 LIMIT 1"
        )
        shown = ", ".join("null" if value is None else _show(value) for value in values)
        problems.append(
            f"{file}: column {rule.column!r}, row {row} is {shown} ({count} such row(s)): "
            f"{rule.rule}"
        )
    if problems:
        raise DataError(f"cannot prepare the {source.name}:\n  " + "\n  ".join(problems))
    return [f"{source.name}.{rule.column}: {rule.rule}" for rule in rules]


def _show(value: object) -> str:
    """A value without characters that would disguise it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def check_user_fields(session: Session, plan: Preparation) -> list[str]:
    """Checks in one grouping that fields of side "user" are constant per user.

    Raises:
        DataError: names the fields, a user and two of the values.
    """
    names = [field.name for field in plan.fields if field.side == "user"]
    if not names:
        return []
    columns = [quote(name) for name in names]
    differ = [
        f"min({c}) <> max({c}) OR (count({c}) > 0 AND count({c}) < count(*))" for c in columns
    ]
    per_user = ", ".join(
        f'CASE WHEN {bad} THEN CAST("user" AS STRING) END AS u{i}' for i, bad in enumerate(differ)
    )
    first = ", ".join(f"min(u{i})" for i in range(len(names)))
    (users,) = session.rows(
        f'SELECT {first} FROM (SELECT {per_user} FROM raw_samples GROUP BY "user") AS per_user'
    )
    problems = []
    for name, column, user in zip(names, columns, users, strict=True):
        if user is not None:
            ((low, high),) = session.rows(
                f"SELECT CAST(min({column}) AS STRING), CAST(max({column}) AS STRING) "
                f'FROM raw_samples WHERE CAST("user" AS STRING) = {quote_text(user)}'
            )
            problems.append(
                f"samples: column {name!r} of user {user} is both {low} and {high} (or null); a "
                "field of side 'user' must be constant per user; give it side 'context'"
            )
    if problems:
        raise DataError("cannot prepare the samples:\n  " + "\n  ".join(problems))
    return [f"samples.{name}: constant per user" for name in names]
