import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ranker_data.frequencies import frequency_path, write_frequencies
from ranker_data.schema import Schema


def count_by_hand(root: Path, max_length: int) -> dict[str, Counter[int]]:
    counts: dict[str, Counter[int]] = {"item_id": Counter(), "tag": Counter(), "user_id": Counter()}
    for path in sorted((root / "samples" / "train").iterdir()):
        events = pq.read_table(root / "behaviors" / path.name).to_pylist()
        for row in pq.read_table(path).to_pylist():
            mine = [e["item_id"] for e in events if e["user"] == row["user"]]
            seen = mine[: row["history_end"]][-max_length:]
            counts["item_id"].update({row["item_id"], *seen})
            counts["tag"].update(set(row["tags"]))
            counts["user_id"][row["user_id"]] += 1
    return counts


@pytest.mark.parametrize("max_length", [1, 6, 100])
def test_an_id_counts_once_a_sample(
    tiny_dataset: Path, tiny_schema: Schema, max_length: int
) -> None:
    found = write_frequencies(tiny_dataset, tiny_schema, max_length=max_length)
    for table, expected in count_by_hand(tiny_dataset, max_length).items():
        assert {i: int(n) for i, n in enumerate(found[table]) if n} == dict(expected)
        stored = np.load(frequency_path(tiny_dataset / "frequencies", table))
        np.testing.assert_array_equal(stored, found[table])
    about = json.loads((tiny_dataset / "frequencies" / "about.json").read_text())
    assert about == {"max_length": max_length}


def test_a_length_is_needed(tiny_dataset: Path, tiny_schema: Schema) -> None:
    with pytest.raises(ValueError, match="max_length is 0"):
        write_frequencies(tiny_dataset, tiny_schema, max_length=0)


def test_the_command_counts(tiny_dataset: Path, project_root: Path) -> None:
    command = [sys.executable, "scripts/count_ids.py", "--max-length", "5", "--data"]
    done = subprocess.run(
        [*command, str(tiny_dataset)], cwd=project_root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "item_id: 39 of 40 ids, median" in done.stdout
    wrong = subprocess.run(
        [*command, str(tiny_dataset / "x")], cwd=project_root, capture_output=True, text=True
    )
    assert wrong.returncode == 3
    assert "schema.yaml does not exist" in wrong.stderr
