import pytest
import torch

from ranker.modules.selection import check_where, select_behaviors
from ranker.slots import SequenceInputs
from ranker_data.schema import Schema


def test_windows_become_the_ranges_of_what_is_kept() -> None:
    behaviors = torch.arange(8.0).unsqueeze(1)
    inputs = SequenceInputs(
        query=torch.zeros(4, 1),
        behaviors=behaviors,
        cross=behaviors * 10,
        windows=torch.tensor([[0, 5], [3, 8], [1, 2], [6, 6]]),
        user_of=torch.arange(4),
        behavior_time=torch.arange(8),
        time=torch.full((4,), 9),
        log_size=torch.arange(8.0),
    )
    keep = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    chosen = select_behaviors(inputs, keep)
    seen = [
        [[int(v) for v in column[b:e].flatten()] for b, e in chosen.windows]
        for column in (chosen.behaviors, chosen.behavior_time, chosen.log_size)
        if column is not None
    ]
    assert seen == [[[0, 3, 4], [3, 4, 7], [], []]] * 3
    assert chosen.cross.flatten().tolist() == [0, 30, 40, 70]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"evnt": [1]}, "names 'evnt'; it must be an id field of the behaviors: item_id"),
        ({"dwell": [1]}, "names 'dwell'"),
        ({"event": [4]}, r"has the id 4; ids are in \[0, 4\)"),
        ({"event": []}, "event is empty"),
    ],
)
def test_a_wrong_selection_is_refused(
    tiny_schema: Schema, where: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_where("sequence.carts.where", where, tiny_schema)
