"""Flipped bits and cut files: an error that names the file, never a crash and never other data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ranker_data.doctor.footers import read_footers
from ranker_data.layout import behaviors_path, samples_path
from ranker_data.preparation.writer import PartWriter
from ranker_data.reader import DataError, read_behaviors
from ranker_data.schema import Field, Label, Schema, Table, write_schema

SCHEMA = Schema(
    name="fuzzed",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=50),),
    fields=(Field(name="item_id", kind="id", table="item"),),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="tags", kind="ids", table="item"),
        Field(name="dwell", kind="dense"),
    ),
    labels=(Label(name="click"),),
)
NUM_FLIPS, NUM_ROWS = 200, 400

# reads the file with one bit flipped, many times, in a process that may die
FUZZ = """
import resource, sys
from pathlib import Path
import numpy as np
from ranker_data.reader import DataError, check_footers, read_behaviors
from ranker_data.layout import behaviors_arrow_schema
from ranker_data.schema import read_schema

resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
root, num_flips = Path(sys.argv[1]), int(sys.argv[2])
path, schema = root / "behaviors" / "part-00000.parquet", read_schema(root)
sound = path.read_bytes()
expected = read_behaviors(path, schema)
draw = np.random.default_rng(1)
for flip in range(num_flips):
    # footers are short: half of the flips go there
    footer = len(sound) - 2500
    place = draw.integers(footer, len(sound)) if flip % 2 else draw.integers(0, len(sound))
    damaged = bytearray(sound)
    damaged[place] ^= 1 << int(draw.integers(0, 8))
    path.write_bytes(damaged)
    try:
        check_footers([path], behaviors_arrow_schema(schema))
        columns = read_behaviors(path, schema)
    except DataError as error:
        assert "part-00000.parquet" in str(error), error
        print("refused")
    else:
        same = all(
            np.array_equal(getattr(found, part, found), getattr(wanted, part, wanted))
            for found, wanted in zip(columns.values(), expected.values(), strict=True)
            for part in ("values", "offsets")
        )
        print("same" if same else f"OTHER DATA at {place}")
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    columns = {
        "user": np.sort(draw.integers(0, 20, NUM_ROWS)),
        "time": np.full(NUM_ROWS, 1_600_000_000),
        "item_id": draw.integers(0, 50, NUM_ROWS),
        "tags": [[1, 2, int(i)] for i in draw.integers(0, 50, NUM_ROWS)],
        "dwell": draw.normal(size=NUM_ROWS).astype(np.float32),
    }
    write_schema(SCHEMA, tmp_path)
    with PartWriter(root=tmp_path, schema=SCHEMA, part=0) as writer:
        writer.write_behaviors(pa.table(columns))
    return tmp_path


def test_a_flipped_bit_is_refused_or_harmless(data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(data), str(NUM_FLIPS)],
        capture_output=True,
        text=True,
        timeout=200,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == NUM_FLIPS
    assert set(lines) == {"refused", "same"}, set(lines)
    assert lines.count("refused") > NUM_FLIPS / 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999])
def test_a_cut_file_is_named(share: float, data: Path) -> None:
    path = behaviors_path(data, 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"part-00000.parquet cannot be read"):
        read_behaviors(path, SCHEMA)
    _, findings = read_footers(data, SCHEMA)
    assert any(str(path) in finding.message for finding in findings)
    assert samples_path(data, "train", 0).is_file()
