"""A plan for a cluster that is not there."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from ranker.config import to_plain
from ranker.derived_config import build_dry_run
from ranker.dry_run import dry_run, measure_batch


def plan(runner: Any, *overrides: str) -> tuple[str, bool]:
    arguments = [*runner.overrides, "world_size=16", *overrides]
    with initialize_config_dir(str(runner.project_root / "configs"), version_base="1.3"):
        return dry_run(*build_dry_run(to_plain(compose("plan", arguments))))


def test_a_large_table_is_spread_and_counted(runner: Any) -> None:
    text, fits = plan(runner, "+rows.item_id=1000000000", "embedding.dim=32")
    assert fits
    # 10^9 rows of 32 floats and one of row-wise Adagrad
    assert "132,000.00" in text
    assert "8,250.0" in text
    assert "of 80.0 GiB" in text


def test_what_does_not_fit_is_named_with_remedies(runner: Any) -> None:
    text, fits = plan(runner, "+rows.item_id=1000000000", "embedding.dim=64", "sharding=table_wise")
    assert not fits
    assert "the largest tables\n  item_id" in text
    assert "+sharding.tables.item_id=row_wise" in text
    assert "fused_uvm_caching" in text
    text, fits = plan(
        runner,
        "+rows.item_id=1000000000",
        "embedding.dim=64",
        "sharding=table_wise",
        "+sharding.kernels.item_id=fused_uvm_caching",
        "local_world_size=2",
        "sharding.cache_fraction=0.1",
    )
    assert fits
    assert "in host memory" in text


def test_a_batch_costs_what_its_ids_and_networks_need(runner: Any) -> None:
    small = measure_batch(runner.job("run"))
    wide = measure_batch(runner.job("run", "embedding.dim=32", "head.hidden_units=[64,64]"))
    assert wide.embedding_bytes == pytest.approx(2 * small.embedding_bytes)
    assert wide.activation_bytes > 1.5 * small.activation_bytes
    assert small.lengths["item_id"] == 1.0


def test_unknown_tables_and_impossible_clusters_are_refused(runner: Any) -> None:
    with pytest.raises(ValueError, match="rows names 'itm'"):
        plan(runner, "+rows.itm=5")
    with pytest.raises(ValueError, match="must be a multiple of local_world_size"):
        plan(runner, "world_size=13")
