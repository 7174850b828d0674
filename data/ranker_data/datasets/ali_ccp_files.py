"""The text format of Ali-CCP, whose characters 1, 2 and 3 separate features, ids and values.

    sample_skeleton_<split>.csv    sample_id, click, buy, common_feature_index, feature_num,
                                   features
    common_features_<split>.csv    common_feature_index, feature_num, features

A feature is a field number, an id and a real value. A sample has its own features, about ten, and
those of its row of common features, hundreds, which it shares with the user's other samples. Nearly
all of these sum up the past: what the user did, by category, shop, brand and intent, with counts.
They are stored once, as events of the row; the real values stay beside the ids.
"""

from pathlib import Path

from ranker_data.datasets.original_files import find_file, find_optional_file, table_sql
from ranker_data.preparation.sql import quote, quote_text
from ranker_data.schema import WEIGHTS_SUFFIX

SPLITS = ("train", "test")
# field number -> our name
USER_FIELDS = {
    "121": "f121",
    "122": "f122",
    "124": "f124",
    "125": "f125",
    "126": "f126",
    "127": "f127",
    "128": "f128",
    "129": "f129",
}
ITEM_FIELDS = {
    "205": "item_id",
    "206": "category",
    "207": "shop",
    "210": "intent",
    "216": "brand",
}
CONTEXT_FIELDS = {"301": "position", "508": "f508", "509": "f509", "702": "f702", "853": "f853"}
# what the user did, counted by a property of the items
HISTORY_FIELDS = {"109_14": "category", "110_14": "shop", "127_14": "brand", "150_14": "intent"}
# fields of which a sample may have several ids, each with its value
MULTIPLE = ("210", "508", "509", "702", "853")
_USER_ID = "101"
_SAMPLE_FIELDS = {**ITEM_FIELDS, **CONTEXT_FIELDS}
_COMMON_FIELDS = {_USER_ID: "user_id", **USER_FIELDS}

_SKELETON = ("sample_id", "click", "buy", "common_index", "num_features", "features")
_COMMON = ("common_index", "num_features", "features")
_SUFFIXES = (".csv", ".csv.gz")


def find_files(source: Path | None) -> dict[str, tuple[Path, Path]]:
    """Returns (skeleton, common features) by split; the test split may be missing.

    Raises:
        ValueError: the training files are missing, or only one of the test files is there.
    """
    files = {"train": _find_pair(source, "train")}
    assert source is not None
    if any(
        find_optional_file(source, [f"{stem}_test"], _SUFFIXES) is not None
        for stem in ("sample_skeleton", "common_features")
    ):
        files["test"] = _find_pair(source, "test")
    return files


def _find_pair(source: Path | None, split: str) -> tuple[Path, Path]:
    if source is not None and source.is_file():
        raise ValueError(f"{source} is a file; give the folder with all files of Ali-CCP")
    return (
        find_file(source, [f"sample_skeleton_{split}"], _SUFFIXES),
        find_file(source, [f"common_features_{split}"], _SUFFIXES),
    )


def skeleton_sql(path: Path) -> str:
    """Returns the samples: sample_id, click, buy, common_index, their fields, and `misplaced`."""
    relation = table_sql(path, names=_SKELETON, quoted=False)
    columns = [
        f"{_ids_sql(number)} AS {name}, {_weights_sql(number)} AS {quote(name + WEIGHTS_SUFFIX)}"
        if number in MULTIPLE
        else f"{_id_sql(number)} AS {name}"
        for number, name in _SAMPLE_FIELDS.items()
    ]
    return f"""(
        SELECT sample_id, click, buy, common_index, {", ".join(columns)},
            {_any_sql(*_COMMON_FIELDS, *HISTORY_FIELDS)} AS misplaced
        FROM (SELECT *, string_split(features, chr(1)) AS listed FROM {_closed_sql(relation)})
    )"""


def common_sql(path: Path) -> str:
    """Returns the common features of which a user has one: common_index, fields, `misplaced`."""
    relation = table_sql(path, names=_COMMON, quoted=False)
    columns = ", ".join(f"{_id_sql(number)} AS {name}" for number, name in _COMMON_FIELDS.items())
    return f"""(
        SELECT common_index, {columns}, {_any_sql(*_SAMPLE_FIELDS)} AS misplaced
        FROM {_closed_sql(relation)}
    )"""


def history_sql(path: Path) -> str:
    """Returns the past that common features sum up: common_index, one property, log_count."""
    relation = table_sql(path, names=_COMMON, quoted=False)
    properties = [
        f"CASE WHEN field = '{number}' THEN [id] ELSE CAST([] AS VARCHAR[]) END AS {name}"
        # an item has several intents: the field of samples is a list
        if name in (_SAMPLE_FIELDS[n] for n in MULTIPLE)
        else f"CASE WHEN field = '{number}' THEN id END AS {name}"
        for number, name in HISTORY_FIELDS.items()
    ]
    numbers = ", ".join(quote_text(number) for number in HISTORY_FIELDS)
    return f"""(
        SELECT common_index, {", ".join(properties)}, log_count FROM (
            SELECT common_index, split_part(feature, chr(2), 1) AS field,
                split_part(split_part(feature, chr(2), 2), chr(3), 1) AS id,
                CAST(split_part(feature, chr(3), 2) AS DOUBLE) AS log_count
            FROM (
                SELECT common_index, unnest(string_split(features, chr(1))) AS feature
                FROM {relation}
            )
        ) WHERE field IN ({numbers})
    )"""


def _closed_sql(relation: str) -> str:
    """Features between separators, so that a field is found by its number and the one before it."""
    closed = "chr(1) || coalesce(features, '') || chr(1)"
    return f"(SELECT * REPLACE ({closed} AS features) FROM {relation})"


def _start_sql(number: str) -> str:
    return f"chr(1) || '{number}' || chr(2)"


def _id_sql(number: str) -> str:
    """The id of a field, or null."""
    found = f"split_part(split_part(features, {_start_sql(number)}, 2), chr(3), 1)"
    return f"nullif({found}, '')"


def _features_sql(number: str) -> str:
    return f"list_filter(listed, lambda f: starts_with(f, '{number}' || chr(2)))"


def _ids_sql(number: str) -> str:
    """The ids of a field, in the file's order."""
    taken = "lambda f: split_part(split_part(f, chr(2), 2), chr(3), 1)"
    return f"list_transform({_features_sql(number)}, {taken})"


def _weights_sql(number: str) -> str:
    """The values beside the ids of a field."""
    taken = "lambda f: CAST(split_part(f, chr(3), 2) AS FLOAT)"
    return f"list_transform({_features_sql(number)}, {taken})"


def _any_sql(*numbers: str) -> str:
    """Whether there is a feature of these fields, which belong to the other file."""
    return " OR ".join(f"contains(features, {_start_sql(number)})" for number in numbers)
