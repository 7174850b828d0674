from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from ranker.config import build_train_job, to_plain
from ranker.config_reader import ConfigError
from ranker.gates.epnet import EPNet
from ranker.sequence.mean_pool import MeanPool
from ranker.slots import FeatureLayout

BASE = ["dataset=prepared", "sequence=[mean_pool]", "name=x", "loader.num_streams=4"]


def compose_plain(project_root: Path, overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
        return to_plain(compose("train", overrides))


def test_a_good_config_becomes_a_job(project_root: Path, tiny_dataset: Path) -> None:
    job = build_train_job(compose_plain(project_root, [*BASE, f"dataset.path={tiny_dataset}"]))
    assert job.run_dir == Path("runs/x")
    assert job.loader.num_streams == 4
    encoder = job.sequence["mean_pool"](query_dim=8, cross_dim=0)
    assert isinstance(encoder, MeanPool)
    assert encoder.output_dim == 8


def test_several_encoders_stand_side_by_side(project_root: Path, tiny_dataset: Path) -> None:
    overrides = [*BASE, f"dataset.path={tiny_dataset}", "sequence=[mean_pool,din]"]
    assert list(build_train_job(compose_plain(project_root, overrides)).sequence) == [
        "mean_pool",
        "din",
    ]


def test_missing_values_are_named(project_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.path must be given") as error:
        compose_plain(project_root, ["dataset=prepared"])
    assert "name must be given" in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+optimizer.dense_lrr=1", r"unknown key optimizer\.dense_lrr; did you mean 'dense_lr'\?"),
        ("+foo=1", r"unknown key foo; known keys are dataset"),
        ("+head.hidden_unit=[1]", r"unknown key head\.hidden_unit; did you mean 'hidden_units'\?"),
        ("loader.batch_size=big", r"loader\.batch_size is 'big'; it must be an integer"),
        ("loader.batch_size=0", r"loader: batch_size must be at least 1, got 0"),
        ("trainer.max_steps=1.5", r"trainer\.max_steps is 1\.5; it must be an integer or null"),
        (
            "head.hidden_units=[a]",
            r"head\.hidden_units is \['a'\]; it must be a list \(an integer\)",
        ),
        ("head.activation=reluu", r"head\.activation is 'reluu'; it must be one of relu, prelu"),
        ("sharding.default=rows", r"sharding\.default is 'rows'; it must be one of row_wise"),
        ("head._target_=os.system", r"head\._target_ is 'os\.system'; only classes under ranker"),
        ("head._target_=ranker.config.pickle", r"cannot be imported"),
        ("head._target_=ranker.embedding.hashlib.sha256", r"cannot be imported"),
        ("head._target_=ranker.run_dir.subprocess", r"is no class of ranker"),
        ("head._target_=ranker.objectives.bce.BCE", r"BCE must accept input_dim, tasks"),
        (
            "+gate._target_=ranker.objectives.bce.BCE",
            r"BCE must accept layout \(contract of Gate\)",
        ),
        ("name=a/b", r"name is 'a/b'; it must be a single folder name"),
        ("dataset.path=/nowhere", r"/nowhere/schema\.yaml does not exist"),
        ("+dataset.exclude=[itemid]", r"unknown field 'itemid'; did you mean 'item_id'\?"),
    ],
)
def test_each_problem_is_named(
    project_root: Path, tiny_dataset: Path, override: str, message: str
) -> None:
    overrides = [*BASE, f"dataset.path={tiny_dataset}", override]
    if override.startswith("+dataset.exclude"):
        overrides[-1] = override[1:]
    with pytest.raises(ConfigError, match=message):
        build_train_job(compose_plain(project_root, overrides))


def test_all_problems_come_at_once(project_root: Path, tiny_dataset: Path) -> None:
    overrides = [*BASE, f"dataset.path={tiny_dataset}", "+foo=1", "loader.batch_size=x", "seed=no"]
    with pytest.raises(ConfigError, match=r"3 problem\(s\) in the configuration"):
        build_train_job(compose_plain(project_root, overrides))


def test_a_plugin_must_be_named_on_the_command_line(
    project_root: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house_heads.py").write_text(
        "from ranker.heads.single_task import SingleTask\n\nclass Ours(SingleTask):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [*BASE, f"dataset.path={tiny_dataset}", "head._target_=house_heads.Ours"]
    with pytest.raises(ConfigError, match=r"add your package with plugins=\[package\]"):
        build_train_job(compose_plain(project_root, overrides))
    job = build_train_job(compose_plain(project_root, [*overrides, "plugins=[house_heads]"]))
    head: Any = job.head(input_dim=3, tasks=("ctr",))
    assert type(head).__name__ == "Ours"


def test_a_head_gets_the_layout_only_if_it_asks(project_root: Path, tiny_dataset: Path) -> None:
    given = {"input_dim": 4, "tasks": ("ctr", "cvr"), "layout": FeatureLayout(("a",), (4,))}
    for overrides in (["head=single_task"], ["head=independent", "head.towers.predict=[ctr]"]):
        arguments = [*BASE, f"dataset.path={tiny_dataset}", *overrides]
        head: Any = build_train_job(compose_plain(project_root, arguments)).head(**given)
        assert type(head).__name__.lower() == overrides[0].removeprefix("head=").replace("_", "")


def test_gate_and_interaction_are_built_from_their_groups(
    project_root: Path, tiny_dataset: Path
) -> None:
    overrides = [*BASE, f"dataset.path={tiny_dataset}", "gate=epnet", "interaction=fm"]
    job = build_train_job(compose_plain(project_root, overrides))
    layout = FeatureLayout(("domain", "item_id"), (3, 16))
    assert job.gate is not None
    assert job.interaction is not None
    assert isinstance(job.gate(layout=layout), EPNet)
    assert job.interaction(layout=layout).output_dim == 16 + layout.dim
    plain = build_train_job(compose_plain(project_root, overrides[:-2]))
    assert plain.gate is plain.interaction is None


def test_a_nested_objective_is_checked_and_built(project_root: Path, tiny_dataset: Path) -> None:
    overrides = [*BASE, f"dataset.path={tiny_dataset}", "objective=lagrangian"]
    overrides += ["objective.priority=[ctr,cvr]"]
    job = build_train_job(
        compose_plain(project_root, [*overrides, "objective@objective.base=esmm"])
    )
    objective: Any = job.objective()
    assert objective.base.conditional == ["cvr"]
    with pytest.raises(
        ConfigError, match=r"unknown key objective\.base\.task_weight; did you mean"
    ):
        build_train_job(compose_plain(project_root, [*overrides, "+objective.base.task_weight=1"]))
