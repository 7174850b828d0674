"""A simulated data set whose truth is known."""

import concurrent.futures
import dataclasses
import multiprocessing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ranker_data.layout import behaviors_arrow_schema, samples_arrow_schema
from ranker_data.preparation import statements
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.output import staged_output
from ranker_data.preparation.plan import digest_of
from ranker_data.preparation.prepare import moments_of
from ranker_data.preparation.sql import quote_text
from ranker_data.preparation.summary import write_stats
from ranker_data.preparation.writer import PartWriter
from ranker_data.schema import Field, Label, Schema, Table, Task, write_schema
from ranker_data.simulator.events import (
    NUM_EVENT_TYPES,
    Events,
    concatenate_events,
    draw_events,
)
from ranker_data.simulator.impressions import Impressions, draw_impressions, hour_of
from ranker_data.simulator.users import Users, draw_users
from ranker_data.simulator.world import (
    NUM_AGES,
    NUM_SEGMENTS,
    START_TIME,
    World,
    WorldConfig,
    build_world,
)

# rows drawn at once; a property of the data set, because blocks have their own random numbers
_ROWS_PER_BLOCK = 400_000
# ids of samples and requests: the user's number and a number within the user
_ID_BITS = 24


class SyntheticConverter:
    """Simulates a data set.

    The same settings give the same files, whatever `num_workers`.
    """

    def __init__(
        self, *, world: WorldConfig | None = None, num_parts: int = 16, num_workers: int = 1
    ) -> None:
        """Checks the settings.

        Args:
            world: size and character of the world; None takes the defaults.
            num_parts: number of co-partitioned files.
            num_workers: processes that simulate parts side by side.

        Raises:
            ValueError: a setting is out of range.
        """
        for name, value in (("num_parts", num_parts), ("num_workers", num_workers)):
            if value < 1:
                raise ValueError(f"dataset.converter.{name} ({value}) must be at least 1")
        self.config = world or WorldConfig()
        self.num_parts = num_parts
        self.num_workers = num_workers

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Writes the simulated data set to `out`; there is no source, and no engine is started."""
        if source is not None:
            raise ValueError(f"a simulated data set has no source, got {source}; leave it out")
        config = self.config
        digest = digest_of({**dataclasses.asdict(config), "num_parts": self.num_parts})
        with staged_output(out, digest) as root:
            self._write_parts(root)
            schema = _measure(build_schema(config), root, config.split_times[0])
            write_schema(schema, root)
            wanted = ["train"]
            wanted += ["valid"] if config.valid_fraction > 0 else []
            wanted += ["test"] if config.test_fraction > 0 else []
            write_stats(
                root,
                schema,
                digest=digest,
                num_parts=self.num_parts,
                checks=[],
                wanted_splits=wanted,
                split_in_time=True,
            )
        return schema

    def _write_parts(self, root: Path) -> None:
        jobs = [(self.config, root, part, self.num_parts) for part in range(self.num_parts)]
        with tqdm(total=len(jobs), desc="simulating", unit="part", disable=None) as progress:
            if self.num_workers == 1:
                for job in jobs:
                    _write_part(*job)
                    progress.update()
                return
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(
                self.num_workers, mp_context=context
            ) as pool:
                futures = [pool.submit(_write_part, *job) for job in jobs]
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    progress.update()


def build_schema(config: WorldConfig) -> Schema:
    """Returns the schema of a simulated data set, before its dense fields have been measured."""
    sizes = {
        "user": config.num_users,
        "segment": NUM_SEGMENTS,
        "age": NUM_AGES,
        "item": config.num_items,
        "category": config.num_categories,
        "domain": config.num_domains,
        "hour": 24,
        "position": config.candidates_per_request,
        "event_type": NUM_EVENT_TYPES,
    }
    return Schema(
        name="synthetic",
        time_unit="s",
        tables=tuple(Table(name=name, num_embeddings=size + 1) for name, size in sizes.items()),
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            Field(name="segment", kind="id", side="user", table="segment"),
            Field(name="age", kind="id", side="user", table="age"),
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
            Field(name="log_price", kind="dense"),
            Field(name="domain", kind="id", side="context", table="domain"),
            Field(name="hour", kind="id", side="context", table="hour"),
            Field(name="position", kind="id", side="context", table="position"),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
            Field(name="event_type", kind="id", table="event_type"),
            Field(name="event_hour", kind="id", table="hour"),
            Field(name="log_dwell", kind="dense"),
        ),
        labels=(
            Label(name="click", truth="p_click"),
            Label(name="conversion", requires="click", truth="p_ctcvr"),
            Label(name="like", truth="p_like"),
            Label(name="long_view", truth="p_long_view"),
        ),
        tasks=(
            Task(name="ctr", label="click", truth="p_click"),
            Task(name="cvr", label="conversion", condition="click", truth="p_conversion"),
            Task(name="ctcvr", label="conversion", truth="p_ctcvr"),
            Task(name="like", label="like", truth="p_like"),
            Task(name="long_view", label="long_view", truth="p_long_view"),
        ),
        group="user",
        domain="domain",
        domain_names=("unknown", *(f"domain_{i + 1}" for i in range(config.num_domains))),
    )


def _write_part(config: WorldConfig, root: Path, part: int, num_parts: int) -> None:
    world = build_world(config)
    schema = build_schema(config)
    keys = np.arange(part + 1, config.num_users + 1, num_parts)
    rows_per_user = config.events_per_user + 10.0 * config.num_dormant
    rows_per_user += config.requests_per_user * config.candidates_per_request
    users_per_block = max(1, int(_ROWS_PER_BLOCK / max(rows_per_user, 1.0)))
    with PartWriter(root=root, schema=schema, part=part) as writer:
        for block, begin in enumerate(range(0, len(keys), users_per_block)):
            seeds = np.random.SeedSequence([config.seed, 1, part, block])
            generator = np.random.Generator(np.random.PCG64(seeds))
            _write_block(
                writer, config, world, schema, keys[begin : begin + users_per_block], generator
            )


def _write_block(
    writer: PartWriter,
    config: WorldConfig,
    world: World,
    schema: Schema,
    keys: np.ndarray[Any, np.dtype[np.int64]],
    generator: np.random.Generator,
) -> None:
    users = draw_users(world, config, len(keys), generator)
    own_events = draw_events(users, world, config, generator)
    shown = draw_impressions(users, world, config, generator)
    events = concatenate_events([own_events, shown.clicked_events(generator)]).sorted()
    writer.write_behaviors(_behaviors_table(schema, config, world, keys, events))
    samples = _samples_table(schema, config, world, keys, users, events, shown)
    valid_from, test_from = config.split_times
    time = samples["time"].to_numpy()
    writer.write_samples("train", samples.filter(time < valid_from))
    writer.write_samples("valid", samples.filter((time >= valid_from) & (time < test_from)))
    writer.write_samples("test", samples.filter(time >= test_from))


def _behaviors_table(
    schema: Schema,
    config: WorldConfig,
    world: World,
    keys: np.ndarray[Any, np.dtype[np.int64]],
    events: Events,
) -> pa.Table:
    columns = {
        "user": keys[events.user],
        "time": START_TIME + events.second,
        "item_id": events.item + 1,
        "category": world.item_topic[events.item] // config.topics_per_category + 1,
        "event_type": events.kind,
        "event_hour": hour_of(events.second) + 1,
        "log_dwell": events.log_dwell.astype(np.float32),
    }
    return pa.table(columns, schema=behaviors_arrow_schema(schema))


def _samples_table(
    schema: Schema,
    config: WorldConfig,
    world: World,
    keys: np.ndarray[Any, np.dtype[np.int64]],
    users: Users,
    events: Events,
    shown: Impressions,
) -> pa.Table:
    key = keys[shown.user]
    number = np.arange(len(key)) - np.searchsorted(shown.user, shown.user)
    columns = {
        "sample_id": (key << _ID_BITS) + number,
        "user": key,
        "time": START_TIME + shown.second,
        "request": (key << _ID_BITS) + shown.request,
        "history_end": count_earlier(events, shown, config.num_seconds),
        "user_id": key,
        "segment": users.segment[shown.user] + 1,
        "age": users.age[shown.user] + 1,
        "item_id": shown.item + 1,
        "category": world.item_topic[shown.item] // config.topics_per_category + 1,
        "log_price": world.log_price[shown.item].astype(np.float32),
        "domain": shown.domain + 1,
        "hour": hour_of(shown.second) + 1,
        "position": shown.position + 1,
        **{name: value.astype(np.float32) for name, value in shown.labels.items()},
        "weight": np.ones(len(key), np.float32),
        "p_click": shown.p_click,
        "p_ctcvr": shown.p_ctcvr,
        "p_conversion": shown.p_conversion,
        "p_like": shown.p_like,
        "p_long_view": shown.p_long_view,
    }
    return pa.table(columns, schema=samples_arrow_schema(schema))


def count_earlier(
    events: Events, shown: Impressions, num_seconds: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns how many events of the user are strictly earlier than each impression, [n]."""
    # a day of room, for clicks that end after the log
    stride = num_seconds + 86_400
    event_keys = events.user * stride + events.second
    first = np.searchsorted(events.user, shown.user, side="left")
    return np.searchsorted(event_keys, shown.user * stride + shown.second, side="left") - first


def _measure(schema: Schema, root: Path, valid_from: int) -> Schema:
    """Returns the schema with mean and standard deviation of dense fields before validation."""
    samples = f"read_parquet({quote_text(f'{root}/samples/train/*.parquet')})"
    behaviors = f"read_parquet({quote_text(f'{root}/behaviors/*.parquet')})"
    moments: dict[tuple[str, str], tuple[float, float]] = {}
    with duckdb.connect(":memory:") as connection:
        for name, fields, relation, condition in (
            ("samples", schema.fields, samples, "true"),
            ("events", schema.behaviors, behaviors, f'"time" < {valid_from}'),
        ):
            dense = tuple(field for field in fields if field.kind == "dense")
            rows = connection.execute(statements.moments_sql(relation, dense, condition)).fetchall()
            moments |= moments_of(name, dense, rows[0])
    return dataclasses.replace(
        schema,
        fields=tuple(_measured(f, moments.get(("samples", f.name))) for f in schema.fields),
        behaviors=tuple(_measured(f, moments.get(("events", f.name))) for f in schema.behaviors),
    )


def _measured(field: Field, moments: tuple[float, float] | None) -> Field:
    return field if moments is None else dataclasses.replace(field, mean=moments[0], std=moments[1])
