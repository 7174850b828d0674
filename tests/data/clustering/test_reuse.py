import numpy as np

from ranker_data.clustering.reuse import fingerprints
from ranker_data.columns import Column, Ragged


def log(**changed: Column) -> dict[str, Column]:
    return {
        "user": np.array([1, 1, 1, 7, 7]),
        "time": np.array([5, 6, 7, 5, 6]),
        "item": np.array([3, 4, 5, 3, 4]),
        "dwell": np.array([0.5, 1.5, 2.5, 0.5, 1.5], np.float32),
        "tags": Ragged(np.array([0, 2, 2, 3, 5, 5]), np.array([8, 9, 8, 8, 9])),
        **changed,
    }


PAST = np.array([True, True, False, True, True])


def test_users_with_the_same_past_have_the_same_fingerprint() -> None:
    users, found, counts = fingerprints(log(), PAST)
    assert users.tolist() == [1, 7]
    assert counts.tolist() == [2, 2]
    assert found[0] == found[1]
    # what is not past does not matter
    later = log(item=np.array([3, 4, 9, 3, 4]))
    assert fingerprints(later, PAST)[1].tolist() == found.tolist()


def test_every_column_order_and_bag_is_in_the_fingerprint() -> None:
    first = fingerprints(log(), PAST)[1][0]
    for changed in (
        {"time": np.array([5, 8, 9, 5, 6])},
        {"item": np.array([4, 3, 5, 3, 4])},
        {"dwell": np.array([0.5, 1.25, 2.5, 0.5, 1.5], np.float32)},
        {"tags": Ragged(np.array([0, 1, 2, 3, 5, 5]), np.array([8, 9, 8, 8, 9]))},
        {"tags": Ragged(np.array([0, 2, 2, 3, 5, 5]), np.array([9, 8, 8, 8, 9]))},
    ):
        users, found, _ = fingerprints(log(**changed), PAST)
        assert users[0] == 1
        assert found[0] != first, changed
    shorter = fingerprints(log(), np.array([True, False, False, True, True]))[1]
    assert shorter[0] != first
