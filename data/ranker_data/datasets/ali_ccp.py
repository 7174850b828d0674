"""Ali-CCP (Ma et al. 2018, ESMM): 85 million impressions with clicks and purchases.

The log has no times. The publisher's test file is the test split, and validation rows are picked at
random from the training file. A row of common features is a user here: it is what the publisher
stored of a person at one time, with all of the history that its samples may see.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.ali_ccp_files import (
    CONTEXT_FIELDS,
    ITEM_FIELDS,
    MULTIPLE,
    SPLITS,
    USER_FIELDS,
    common_sql,
    find_files,
    history_sql,
    skeleton_sql,
)
from ranker_data.datasets.conversion import RawRelations, convert, count_rows
from ranker_data.datasets.nominal_time import first_moment, published_split, random_moment_sql
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Side, Task


class AliCcpConverter:
    """Converts `sample_skeleton_{train,test}.csv` and `common_features_{train,test}.csv`.

    labels
        click    as in the file
        buy      as in the file; rows with a purchase and no click are dropped and counted
    events
        what the row of common features counts: a category, shop, brand or intent, and `log_count`
    """

    def __init__(
        self,
        *,
        seed: int = 2026,
        valid_fraction: float = 0.1,
        min_count: int = 10,
        num_parts: int = 64,
    ):
        """Sets the definitions.

        Args:
            seed: of the choice of the validation rows.
            valid_fraction: share of the training file's rows for validation. Without a test file,
                the same share is for testing.
            min_count: ids of users, items, shops, brands, categories and intents seen less often
                than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        if not 0 < valid_fraction < 0.5:
            raise ValueError(
                f"dataset.converter.valid_fraction ({valid_fraction}) must be in (0, 0.5)"
            )
        self._seed = seed
        self._valid_fraction = valid_fraction
        self._min_count = min_count
        self._num_parts = num_parts

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`."""
        files = find_files(source)
        settings = {
            "converter": "ali_ccp",
            "seed": self._seed,
            "valid_fraction": self._valid_fraction,
            "min_count": self._min_count,
            "num_parts": self._num_parts,
        }
        return convert(
            lambda connection: self._build(connection, files),
            out=out,
            settings=settings,
            engine=engine,
        )

    def _build(
        self, connection: duckdb.DuckDBPyConnection, files: dict[str, tuple[Path, Path]]
    ) -> RawRelations:
        counts = dict.fromkeys(
            (
                "purchases_without_click",
                "samples_without_common_features",
                "rows_with_features_of_the_other_file",
            ),
            0,
        )
        rows, samples, events = dict.fromkeys(SPLITS, 0), [], []
        for split, (skeleton, common) in files.items():
            for name, parsed in (
                ("skeleton", skeleton_sql(skeleton)),
                ("common", common_sql(common)),
            ):
                connection.execute(f"CREATE TABLE {name}_{split} AS SELECT * FROM {parsed}")
                misplaced = count_rows(connection, f"{name}_{split}", "misplaced")
                counts["rows_with_features_of_the_other_file"] += misplaced
            total = count_rows(connection, f"skeleton_{split}")
            rows[split] = count_rows(connection, f"skeleton_{split}", _KEPT)
            counts["purchases_without_click"] += total - rows[split]
            counts["samples_without_common_features"] += count_rows(
                connection, f"skeleton_{split} s ANTI JOIN common_{split} USING (common_index)"
            )
            samples.append(self._sample_sql(split))
            events.append(_event_sql(split, common))
        # such samples have no user
        if counts["samples_without_common_features"]:
            raise ValueError(
                f"{counts['samples_without_common_features']} samples have a common_feature_index "
                "that the common features do not have; the files do not belong together"
            )
        connection.execute(f"CREATE VIEW sample AS {' UNION ALL '.join(samples)}")
        connection.execute(f"CREATE VIEW event AS {' UNION ALL '.join(events)}")
        return RawRelations(plan=self._plan(rows), counts=counts)

    def _sample_sql(self, split: str) -> str:
        # the block keeps the files apart, which number their samples alike
        moment = random_moment_sql("sample_id", seed=self._seed, block=SPLITS.index(split))
        return f"""
        SELECT * EXCLUDE (sample_id, common_index, misplaced, click, buy),
            {_user_sql(split)} AS "user", {moment} AS "time",
            CAST(click AS BIGINT) AS click, CAST(buy AS BIGINT) AS buy
        FROM skeleton_{split} JOIN (SELECT * EXCLUDE (misplaced) FROM common_{split})
            USING (common_index)
        WHERE {_KEPT}
        """

    def _plan(self, rows: dict[str, int]) -> Preparation:
        rare = dict.fromkeys(("user", *ITEM_FIELDS.values()), self._min_count)
        if rows["test"]:
            split = published_split(
                rows["train"], rows["test"], valid_fraction=self._valid_fraction
            )
        else:
            fraction = self._valid_fraction
            split = TimeSplit(valid_fraction=fraction, test_fraction=fraction)
        return Preparation(
            name="ali_ccp",
            time_unit="s",
            fields=(
                Field(name="user_id", kind="id", side="user", table="user"),
                *_fields(USER_FIELDS, "user"),
                *_fields(ITEM_FIELDS, "item"),
                *_fields(CONTEXT_FIELDS, "context"),
            ),
            behaviors=(
                Field(name="category", kind="id", table="category"),
                Field(name="shop", kind="id", table="shop"),
                Field(name="brand", kind="id", table="brand"),
                Field(name="intent", kind="ids", table="intent"),
                Field(name="log_count", kind="dense"),
            ),
            labels=(Label(name="click"), Label(name="buy", requires="click")),
            tasks=(
                Task(name="ctr", label="click"),
                Task(name="cvr", label="buy", condition="click"),
                Task(name="ctcvr", label="buy"),
            ),
            group="user",
            split=split,
            min_count=rare,
            num_parts=self._num_parts,
        )


_KEPT = "NOT (click = '0' AND buy = '1')"


def _user_sql(split: str) -> str:
    return f"'{split}|' || common_index"


def _event_sql(split: str, common: Path) -> str:
    # before all samples of the file, and not before the validation of an earlier file
    moment = first_moment(SPLITS.index(split)) - 1
    return f"""
    SELECT * EXCLUDE (common_index), {_user_sql(split)} AS "user", {moment} AS "time"
    FROM {history_sql(common)}
    """


def _fields(names: dict[str, str], side: Side) -> list[Field]:
    return [
        Field(name=name, kind="ids", side=side, table=name, weighted=True)
        if number in MULTIPLE
        else Field(name=name, kind="id", side=side, table=name)
        for number, name in names.items()
    ]
