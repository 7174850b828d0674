"""Clusters the histories of a prepared data set for TWIN-V2; the original stays as it is.

    python scripts/cluster_histories.py --source datasets/movielens --out datasets/clustered \
        --run runs/twin --field item_id

Then train on the result as on any data set: dataset=prepared dataset.path=<out> sequence=twin.
Vectors come from a run's newest checkpoint, or from an array with a row for each id.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def main() -> None:
    """Reads the arguments, clusters, and says what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--run", type=Path, help="run whose newest checkpoint has the vectors")
    origin.add_argument("--vectors", type=Path, help=".npy array [ids, D]")
    parser.add_argument("--field", default="item_id", help="behaviour id field (item_id)")
    parser.add_argument("--max-size", type=int, default=20, help="largest cluster (20)")
    parser.add_argument("--group-field", help="dense behaviour field whose bands stay apart")
    parser.add_argument("--group-edges", type=float, nargs="+", default=[], help="band borders")
    parser.add_argument(
        "--previous", type=Path, help="clustered earlier: unchanged users keep their clusters"
    )
    parser.add_argument("--num-workers", type=int, default=1, help="processes (1)")
    arguments = parser.parse_args()

    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command

    sys.exit(run_command(lambda: cluster(arguments)))


def cluster(arguments: argparse.Namespace) -> None:
    """Clusters as the arguments say."""
    from ranker_data.clustering.events import ClusteringOptions
    from ranker_data.clustering.prepare import cluster_histories

    options = ClusteringOptions(
        field=arguments.field,
        max_size=arguments.max_size,
        group_field=arguments.group_field,
        group_edges=tuple(arguments.group_edges),
    )
    if arguments.run is not None:
        vectors = read_run_table(arguments.run, arguments.source, options.field)
    else:
        vectors = np.load(arguments.vectors, allow_pickle=False)
    start = time.perf_counter()
    summary = cluster_histories(
        arguments.source,
        arguments.out,
        vectors,
        options,
        num_workers=arguments.num_workers,
        previous=arguments.previous,
    )
    seconds = time.perf_counter() - start
    kept = f"{summary.num_kept_events} of them kept their clusters, " if arguments.previous else ""
    print(
        f"{summary.num_events} past events became {summary.num_clusters} clusters "
        f"({summary.num_clusters / max(summary.num_events, 1):.1%}), "
        f"{kept}{summary.num_recent_events} recent events stay; variance not explained by the "
        f"clusters {summary.unexplained_fraction:.3f}; {seconds:.1f} s, "
        f"{60e-6 * summary.num_events / seconds:.2f} million events a minute"
    )


def read_run_table(run: Path, source: Path, field_name: str) -> NDArray[np.float32]:
    """Reads the table behind a behaviour field from the newest checkpoint of a run.

    Raises:
        ValueError: there is no such field, table or checkpoint.
    """
    import torch
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    from ranker.checkpoint_files import list_checkpoints, verify_checkpoint
    from ranker.safe_storage import TensorsOnlyLoadPlanner, TensorsOnlyReader
    from ranker_data.schema import read_schema

    field = next((f for f in read_schema(source).behaviors if f.name == field_name), None)
    if field is None or field.table is None:
        raise ValueError(f"--field {field_name!r} is no id field of the behaviors of {source}")
    whole = [c for c in list_checkpoints(run / "checkpoints") if verify_checkpoint(c) is None]
    if not whole:
        raise ValueError(f"--run {run} has no whole checkpoint; train it first")
    reader = TensorsOnlyReader(whole[-1])
    entries = reader.read_metadata().state_dict_metadata
    suffix = f".{field.table}.weight"
    key = next((k for k in entries if k.startswith("model.") and k.endswith(suffix)), None)
    if key is None:
        raise ValueError(f"{whole[-1]} has no table {field.table!r}; take another run or --vectors")
    entry = entries[key]
    assert isinstance(entry, TensorStorageMetadata)
    table = torch.empty(entry.size)
    with warnings.catch_warnings():
        # it says that this is one process, which is what no_dist means
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(
            {key: table},
            storage_reader=TensorsOnlyReader(whole[-1]),
            planner=TensorsOnlyLoadPlanner(),
            no_dist=True,
        )
    return table.numpy()


if __name__ == "__main__":
    main()
