"""The text format of Ali-CCP, whose characters 1, 2 and 3 separate features, ids and values.

    sample_skeleton_<split>.csv    sample_id, click, buy, common_feature_index, feature_num,
                                   features
    common_features_<split>.csv    common_feature_index, feature_num, features

A feature is a field number, an id and a real value. A sample has its own features and those of its
row of common features. Fields of which a sample may have several ids are lists; the real value
beside an id (the count of a past behaviour, 1 otherwise) has no place in a list of ids and is left
out.
"""

from pathlib import Path

from ranker_data.datasets.original_files import find_file, find_optional_file, table_sql

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
# what the user did, counted by the id of the item's property; the table is the property's
HISTORY_FIELDS = {"109_14": "category", "110_14": "shop", "127_14": "brand", "150_14": "intent"}
# fields of which a sample may have several ids
MULTIPLE = ("210", "508", "509", "702", "853", *HISTORY_FIELDS)
_USER_ID = "101"

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
    """Returns the samples of one split: sample_id, click, buy, common_index and all fields."""
    return _parsed_sql(path, _SKELETON, "sample_id, click, buy, common_index")


def common_sql(path: Path) -> str:
    """Returns the common features of one split: common_index and all fields."""
    return _parsed_sql(path, _COMMON, "common_index")


def joined_columns_sql(sample: str, common: str) -> str:
    """Returns all fields of a sample `sample` together with its common features `common`."""
    return ", ".join(
        f"list_concat({sample}.{name}, {common}.{name}) AS {name}"
        if number in MULTIPLE
        else f"coalesce({sample}.{name}, {common}.{name}) AS {name}"
        for number, name in _all_fields().items()
    )


def _all_fields() -> dict[str, str]:
    fields = {_USER_ID: "user_id", **USER_FIELDS, **ITEM_FIELDS, **CONTEXT_FIELDS}
    return fields | {number: f"f{number}" for number in HISTORY_FIELDS}


def _parsed_sql(path: Path, names: tuple[str, ...], keys: str) -> str:
    """Parses every line once: common features are long, and many samples share them."""
    relation = table_sql(path, names=names, quoted=False)
    columns = ", ".join(
        f"{_ids_sql(number) if number in MULTIPLE else _id_sql(number)} AS {name}"
        for number, name in _all_fields().items()
    )
    return f"""(
        SELECT {keys}, {columns} FROM (
            SELECT * REPLACE (string_split(coalesce(features, ''), chr(1)) AS features)
            FROM {relation}
        )
    )"""


def _ids_sql(number: str) -> str:
    """The ids of a field, in the file's order."""
    start = f"'{number}' || chr(2)"
    chosen = f"list_filter(features, lambda f: starts_with(f, {start}))"
    return f"list_transform({chosen}, lambda f: split_part(split_part(f, chr(2), 2), chr(3), 1))"


def _id_sql(number: str) -> str:
    return f"{_ids_sql(number)}[1]"
