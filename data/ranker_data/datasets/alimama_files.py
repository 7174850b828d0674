"""The files of Alimama display ads as the relations `sample` and `event`."""

from collections.abc import Mapping
from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import count_rows
from ranker_data.datasets.original_files import (
    TEXT_SUFFIXES,
    check_has_columns,
    find_file,
    find_optional_file,
    table_sql,
)
from ranker_data.preparation.sql import quote, quote_text

PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
_AD = ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price")
_COLUMNS = {
    "raw_sample": ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"),
    "ad_feature": _AD,
    "user_profile": ("userid", *PROFILE),
    "behavior_log": ("user", "time_stamp", "btag", "cate", "brand"),
}
_JOINED_STEM = "taobao_data_sample_1w"
_JOINED = (
    "user_id",
    "time_stamp",
    "pid",
    "clk",
    "tag_category_list",
    "tag_brand_list",
    *PROFILE,
    *_AD,
)


def find_files(source: Path | None) -> dict[str, Path]:
    """Returns the four original files by name, or the joined sample as {"joined": path}.

    Raises:
        ValueError: there is neither.
    """
    if source is not None and source.is_file():
        return {"joined": source}
    if source is not None:
        joined = find_optional_file(source, [_JOINED_STEM], TEXT_SUFFIXES)
        if joined is not None:
            return {"joined": joined}
    return {name: find_file(source, [name], TEXT_SUFFIXES) for name in _COLUMNS}


def create_from_original(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path]
) -> dict[str, int]:
    """Creates `sample` and `event` from the four files; returns counts of what is odd."""
    for name, columns in _COLUMNS.items():
        _create_view(connection, name, files[name], columns)
    profile = ", ".join(f"max({_whole(name)}) AS {name}" for name in PROFILE)
    connection.execute(
        f"""
        CREATE TABLE profiles AS
        SELECT {_whole("userid")} AS user_id, {profile} FROM user_profile GROUP BY 1
        """
    )
    profile = ", ".join(f"p.{name}" for name in PROFILE)
    connection.execute(
        f"""
        CREATE VIEW sample AS
        SELECT {_whole('s."user"')} AS "user", {_whole('s."user"')} AS user_id, {profile},
            {_impression_sql("s", "a")}
        FROM raw_sample s
            LEFT JOIN ad_feature a ON {_whole("s.adgroup_id")} = {_whole("a.adgroup_id")}
            LEFT JOIN profiles p ON {_whole('s."user"')} = p.user_id
        """
    )
    # a few rows of the log have times far from the three weeks of the data
    near = f"{_whole('time_stamp')} >= {_LOG_FIRST} AND {_whole('time_stamp')} < {_LOG_END}"
    connection.execute(
        f"""
        CREATE VIEW event AS
        SELECT {_whole('"user"')} AS "user", {_whole("time_stamp")} AS "time",
            {_whole("cate")} AS category, {_whole("brand")} AS brand, btag AS behavior
        FROM behavior_log WHERE {near}
        """
    )
    return {
        "events_outside_the_log": count_rows(connection, "behavior_log", f"NOT ({near})"),
        "samples_without_profile": count_rows(connection, "sample", "cms_group_id IS NULL"),
    }


# 2017-04-21 to 2017-05-14 in Beijing, a day to spare on both sides
_LOG_FIRST, _LOG_END = 1_492_704_000, 1_494_777_600


def create_from_joined(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path]
) -> dict[str, int]:
    """Creates `sample` from the joined file; returns counts of what is odd."""
    _create_view(connection, "joined", files["joined"], _JOINED)
    profile = ", ".join(f"{_whole('j.' + name)} AS {name}" for name in PROFILE)
    connection.execute(
        f"""
        CREATE VIEW sample AS
        SELECT {_whole("j.user_id")} AS "user", {_whole("j.user_id")} AS user_id, {profile},
            {_tags("tag_category_list")} AS tag_categories, {_tags("tag_brand_list")} AS tag_brands,
            {_impression_sql("j", "j")}
        FROM joined j
        """
    )
    return {"samples_without_profile": count_rows(connection, "sample", "cms_group_id IS NULL")}


def _create_view(
    connection: duckdb.DuckDBPyConnection, name: str, path: Path, columns: tuple[str, ...]
) -> None:
    relation = table_sql(path, null_texts=("", "NULL"))
    # the header of user_profile has a blank behind its last name
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    names = ", ".join(f"{quote(row[0])} AS {quote(row[0].strip())}" for row in described)
    connection.execute(f"CREATE VIEW {name} AS SELECT {names} FROM {relation}")
    check_has_columns(connection, path, name, columns)


def _whole(column: str) -> str:
    """An id, which some files have as 8.0 because of nulls in the column."""
    return f"CAST(CAST({column} AS DOUBLE) AS BIGINT)"


def _tags(column: str) -> str:
    split = f"string_split({column}, {quote_text('|')})"
    return f"CASE WHEN {column} IS NULL THEN CAST([] AS VARCHAR[]) ELSE {split} END"


def _impression_sql(sample: str, ad: str) -> str:
    return f"""{_whole(f"{sample}.time_stamp")} AS "time",
            {_whole(f"{sample}.adgroup_id")} AS ad, {_whole(f"{ad}.cate_id")} AS category,
            {_whole(f"{ad}.campaign_id")} AS campaign, {_whole(f"{ad}.customer")} AS customer,
            {_whole(f"{ad}.brand")} AS brand, ln(1 + CAST({ad}.price AS DOUBLE)) AS log_price,
            {sample}.pid AS place,
            CAST(({_whole(f"{sample}.time_stamp")} + 28800) // 3600 % 24 AS BIGINT) AS hour,
            CAST({sample}.clk AS BIGINT) AS click"""
