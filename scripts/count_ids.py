"""Counts in how many training samples each id is, for mini-batch aware regularisation.

    python scripts/count_ids.py --data datasets/movielens --max-length 50

Then train with regularizer=[mba]. Counts hold for one length of history: give loader.max_length.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Reads the arguments and counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--max-length", type=int, required=True, help="loader.max_length")
    arguments = parser.parse_args()

    # imported late, because torchrec takes seconds and --help or a typo should not wait for it
    from ranker.command import run_command

    sys.exit(run_command(lambda: count(arguments.data, arguments.max_length)))


def count(data: Path, max_length: int) -> None:
    """Counts and says what there is."""
    from ranker_data.frequencies import write_frequencies
    from ranker_data.schema import read_schema

    for table, counts in write_frequencies(data, read_schema(data), max_length=max_length).items():
        present = counts[counts > 0]
        median = int(sorted(present)[len(present) // 2]) if len(present) else 0
        print(f"{table}: {len(present):,} of {len(counts):,} ids, median {median:,} samples an id")


if __name__ == "__main__":
    main()
