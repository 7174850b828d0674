"""Moments for samples of data sets that publish none: only order and split mean something.

Times count seconds from a nominal start, so that the split in time of the preparation can express
"in the order of the file", "at random" and "the publisher's test file is the test split".
"""

from ranker_data.preparation.plan import TimeSplit

# 2020-01-01, an arbitrary day
NOMINAL_START = 1_577_836_800
# different moments of a file in random order
_MOMENTS = 100_000_000


def first_moment(block: int) -> int:
    """Returns the first moment of a block; all moments of a block are later than the one before."""
    return NOMINAL_START + block * _MOMENTS


def random_moment_sql(key: str, *, seed: int, block: int = 0) -> str:
    """Returns an SQL moment that is a function of a row's key and the seed.

    Args:
        key: SQL text that identifies a row.
        seed: of the order.
        block: in which the moments are.
    """
    return (
        f"CAST({first_moment(block)} + md5_number_lower('{seed}|' || {key}) % {_MOMENTS} AS BIGINT)"
    )


def published_split(num_train: int, num_test: int, *, valid_fraction: float) -> TimeSplit:
    """Returns the split by files: block 1 is the publisher's test file.

    Args:
        num_train: rows of the training file.
        num_test: rows of the test file.
        valid_fraction: share of the training file's rows for validation.
    """
    total = num_train + num_test
    return TimeSplit(
        valid_fraction=num_train * valid_fraction / total, test_fraction=num_test / total
    )
