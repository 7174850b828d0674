"""Alimama display ads (Tianchi 56): eight days of ad impressions, and three weeks of behaviour.

Either the four original files, with the behaviour log as history, or the joined sample in
circulation, one file whose histories are summed up in two tag lists.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.alimama_files import (
    PROFILE,
    create_from_joined,
    create_from_original,
    find_files,
)
from ranker_data.datasets.conversion import RawRelations, convert
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Task


class AlimamaConverter:
    """Converts `raw_sample`, `ad_feature`, `user_profile`, `behavior_log`, or their joined sample.

    label
        click    column `clk`
    events
        the behaviour log: category, brand, and what was done (`btag`: pv, cart, fav, buy). The
        joined sample has none.
    """

    def __init__(
        self,
        *,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_ad_count: int = 1,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            valid_fraction: share of the samples for validation.
            test_fraction: share of the samples for testing, the last ones.
            min_ad_count: ads seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        self._split = TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction)
        self._min_ad_count = min_ad_count
        self._num_parts = num_parts

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`, or the joined file `source`."""
        files = find_files(source)
        joined = "joined" in files
        plan = self._plan(joined)

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            create = create_from_joined if joined else create_from_original
            return RawRelations(plan=plan, counts=create(connection, files))

        settings = {"converter": "alimama", "joined": joined, "plan": plan.digest()}
        return convert(build, out=out, settings=settings, engine=engine)

    def _plan(self, joined: bool) -> Preparation:
        tags = (
            Field(name="tag_categories", kind="ids", side="context", table="category"),
            Field(name="tag_brands", kind="ids", side="context", table="brand"),
        )
        behaviors = (
            Field(name="category", kind="id", table="category"),
            Field(name="brand", kind="id", table="brand"),
            Field(name="behavior", kind="id", table="behavior"),
        )
        return Preparation(
            name="alimama",
            time_unit="s",
            fields=(
                Field(name="user_id", kind="id", side="user", table="user"),
                *(Field(name=name, kind="id", side="user", table=name) for name in PROFILE),
                *(tags if joined else ()),
                Field(name="ad", kind="id", table="ad"),
                Field(name="category", kind="id", table="category"),
                Field(name="campaign", kind="id", table="campaign"),
                Field(name="customer", kind="id", table="customer"),
                Field(name="brand", kind="id", table="brand"),
                Field(name="log_price", kind="dense"),
                Field(name="place", kind="id", side="context", table="place"),
                Field(name="hour", kind="id", side="context", table="hour"),
            ),
            behaviors=() if joined else behaviors,
            labels=(Label(name="click"),),
            tasks=(Task(name="ctr", label="click"),),
            group="user",
            domain="place",
            split=self._split,
            min_count={"ad": self._min_ad_count},
            num_parts=self._num_parts,
        )
