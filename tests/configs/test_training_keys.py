"""Commands that take the keys of training take all of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

# the planner trains nothing
DIFFERENT = {"name", "hydra"}


def read(root: Path, name: str) -> dict[str, Any]:
    config = yaml.safe_load((root / "configs" / f"{name}.yaml").read_text())
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize("name", ["plan", "train_daily"])
def test_a_command_has_the_keys_and_defaults_of_training(project_root: Path, name: str) -> None:
    train, own = read(project_root, "train"), read(project_root, name)
    for key in train.keys() - DIFFERENT:
        assert own[key] == train[key], key
