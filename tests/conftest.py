"""Fixtures that several test folders share."""

import os
from collections.abc import Callable
from pathlib import Path

# products of the Triton interpreter, which NumPy computes, round alike on all x86 machines with it;
# OpenBLAS reads it when NumPy is imported
os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.layout import (
    behaviors_arrow_schema,
    behaviors_path,
    samples_arrow_schema,
    samples_path,
)
from ranker_data.schema import Field, Label, Schema, Table, Task, write_schema

# how long an example takes says more about the machine than about the code
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

PROJECT_ROOT = Path(__file__).resolve().parents[1]

TINY_SCHEMA = Schema(
    name="tiny",
    time_unit="s",
    tables=(
        Table(name="user_id", num_embeddings=64),
        Table(name="item_id", num_embeddings=40),
        Table(name="category", num_embeddings=6),
        Table(name="tag", num_embeddings=9),
        Table(name="event", num_embeddings=4),
        Table(name="domain", num_embeddings=3),
    ),
    fields=(
        Field(name="user_id", kind="id", side="user", table="user_id"),
        Field(name="age", kind="dense", side="user", mean=30.0, std=10.0),
        Field(name="item_id", kind="id", side="item", table="item_id"),
        Field(name="category", kind="id", side="item", table="category"),
        Field(name="tags", kind="ids", side="item", table="tag"),
        Field(name="price", kind="dense", side="item", mean=1.0, std=2.0),
        Field(name="domain", kind="id", side="context", table="domain"),
    ),
    behaviors=(
        Field(name="item_id", kind="id", table="item_id"),
        Field(name="category", kind="id", table="category"),
        Field(name="event", kind="id", table="event"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(
        Label(name="click", truth="p_click"),
        Label(name="buy", requires="click"),
    ),
    tasks=(
        Task(name="ctr", label="click", truth="p_click"),
        Task(name="cvr", label="buy", condition="click"),
    ),
    domain="domain",
    domain_names=("unknown", "home", "search"),
)


def write_tiny_part(
    root: Path, schema: Schema, split: str, part: int, users: list[int], seed: int
) -> None:
    """Writes the samples of some users, and their events, as part `part`."""
    generator = np.random.default_rng([seed, part])
    item_category = np.random.default_rng(0).integers(1, 6, 40)
    events: dict[str, list[object]] = {name: [] for name in behaviors_arrow_schema(schema).names}
    samples: dict[str, list[object]] = {name: [] for name in samples_arrow_schema(schema).names}
    for user in users:
        # user 0 of every part has no history; times repeat, so ties occur
        times = np.sort(
            generator.integers(0, 50, 0 if user == users[0] else generator.integers(1, 30))
        )
        for time in times:
            item = int(generator.integers(1, 40))
            for name, value in (
                ("user", user),
                ("time", int(time)),
                ("item_id", item),
                ("category", int(item_category[item])),
                ("event", int(generator.integers(1, 4))),
                ("dwell", float(generator.normal())),
            ):
                events[name].append(value)
        favourite = user % 5 + 1
        for time in np.sort(generator.integers(0, 60, generator.integers(0, 12))):
            item = int(generator.integers(1, 40))
            p_click = 0.7 if item_category[item] == favourite else 0.2
            click = float(generator.random() < p_click)
            for name, value in (
                ("sample_id", split_base(split) + part * 10_000 + len(samples["user"])),
                ("user", user),
                ("time", int(time)),
                ("request", user * 100 + int(time)),
                ("history_end", int(np.searchsorted(times, time, side="left"))),
                ("user_id", user % 63 + 1),
                ("age", float(20 + user % 30)),
                ("item_id", item),
                ("category", int(item_category[item])),
                ("tags", generator.integers(1, 9, generator.integers(0, 4)).tolist()),
                ("price", float(generator.normal(1, 2))),
                ("domain", int(generator.integers(1, 3))),
                ("click", click),
                ("buy", float(click and generator.random() < 0.3)),
                ("weight", 1.0),
                ("p_click", p_click),
            ):
                if name in samples:
                    samples[name].append(value)
    for path, columns, arrow in (
        (behaviors_path(root, part), events, behaviors_arrow_schema(schema)),
        (samples_path(root, split, part), samples, samples_arrow_schema(schema)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=arrow), path, write_page_checksum=True)


def split_base(split: str) -> int:
    return {"train": 0, "valid": 1_000_000, "test": 2_000_000}[split]


def write_tiny_dataset(
    root: Path, *, num_parts: int = 4, users_per_part: int = 15, seed: int = 0
) -> Path:
    """Writes a few hundred samples whose click depends on the user's favourite category."""
    root.mkdir(parents=True, exist_ok=True)
    write_schema(TINY_SCHEMA, root)
    for part in range(num_parts):
        users = list(range(part * users_per_part, (part + 1) * users_per_part))
        for split in ("train", "valid", "test"):
            write_tiny_part(root, TINY_SCHEMA, split, part, users, seed)
    return root


@pytest.fixture(scope="session")
def tiny_schema() -> Schema:
    return TINY_SCHEMA


@pytest.fixture(scope="session")
def make_tiny_dataset() -> Callable[..., Path]:
    return write_tiny_dataset


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def project_root() -> Path:
    return PROJECT_ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real public data sets, which the project does not ship."""
    folder = Path(os.environ.get("RANKER_TEST_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RANKER_TEST_DATA to run this test")
    return folder
