from pathlib import Path

import pytest

from ranker.checkpoint_files import (
    CheckpointError,
    begin,
    choose,
    commit,
    describe_files,
    list_checkpoints,
    newest_usable,
    prune,
    verify_checkpoint,
)


def save(folder: Path, step: int, text: str = "tensors", best: int | None = None) -> Path:
    temporary = begin(folder, step, 0)
    shard = temporary / "__0_0.distcp"
    shard.write_text(text)
    state = {"progress": {"best_step": best}}
    return commit(temporary, state, {"files": describe_files([shard])})


def test_a_committed_checkpoint_is_whole(tmp_path: Path) -> None:
    path = save(tmp_path, 4)
    assert path.name == "step-00000004"
    assert verify_checkpoint(path) is None
    assert newest_usable(tmp_path) == (path, [])


def test_what_is_being_written_does_not_count_and_is_cleared(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    begin(tmp_path, 2, 0)
    assert newest_usable(tmp_path) == (path, [])
    begin(tmp_path, 3, 0)
    assert sorted(p.name for p in tmp_path.glob(".tmp-*")) == [".tmp-step-00000003"]


def test_a_step_is_replaced_as_a_whole(tmp_path: Path) -> None:
    save(tmp_path, 4, "before")
    path = save(tmp_path, 4, "after")
    assert (path / "__0_0.distcp").read_text() == "after"
    assert verify_checkpoint(path) is None


def test_a_replacement_that_was_not_finished_is_undone(tmp_path: Path) -> None:
    path = save(tmp_path, 4)
    path.rename(tmp_path / ".tmp-old-step-00000004")
    assert newest_usable(tmp_path) == (path, [])


def test_no_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"it needs 1000000000\.000 GB, .* GB are free"):
        begin(tmp_path, 1, 10**18)
    assert not list(tmp_path.iterdir())


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    prune(tmp_path, keep=2, protect=2)
    assert [p.name[-1] for p in list_checkpoints(tmp_path)] == ["2", "4", "5"]


def test_a_checkpoint_is_chosen_by_word_or_step(tmp_path: Path) -> None:
    first, last = save(tmp_path, 1), save(tmp_path, 2, best=1)
    assert choose(tmp_path, "last") == last
    assert choose(tmp_path, "best") == choose(tmp_path, 1) == first
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; it keeps step-00000001"):
        choose(tmp_path, 3)
    with pytest.raises(CheckpointError, match="checkpoint is 'bset'; it must be best, last or"):
        choose(tmp_path, "bset")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"../../x": {}}}', '{"files": 3}'])
def test_a_garbled_manifest_is_damage_and_leads_nowhere_else(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 1)
    (path / "MANIFEST.json").write_text(text)
    assert verify_checkpoint(path) is not None
    with pytest.raises(CheckpointError, match="is usable"):
        newest_usable(tmp_path)


def test_a_foreign_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "step-backup").mkdir()
    assert list_checkpoints(tmp_path) == []
