import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from ranker_data.datasets.ali_ccp import AliCcpConverter
from ranker_data.datasets.alimama import AlimamaConverter
from ranker_data.datasets.amazon import AmazonConverter
from ranker_data.datasets.avazu import AvazuConverter
from ranker_data.datasets.census_income import CensusIncomeConverter
from ranker_data.datasets.complete_journey import CompleteJourneyConverter
from ranker_data.datasets.converter import DatasetConverter
from ranker_data.datasets.criteo import CriteoConverter
from ranker_data.datasets.custom import CustomConverter
from ranker_data.datasets.ebnerd import EbnerdConverter
from ranker_data.datasets.kuairand import KuairandConverter
from ranker_data.datasets.movielens import MovielensConverter
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.datasets.taobao import TaobaoConverter

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "dataset"
CONFIGS = [path for path in sorted(FOLDER.glob("*.yaml")) if "\nconverter:" in path.read_text()]


def test_converters_keep_the_contract() -> None:
    converters: list[DatasetConverter] = [
        AliCcpConverter(),
        AlimamaConverter(),
        AmazonConverter(),
        AvazuConverter(),
        CensusIncomeConverter(),
        CompleteJourneyConverter(),
        CriteoConverter(),
        CustomConverter(),
        KuairandConverter(),
        TaobaoConverter(),
        EbnerdConverter(),
        MovielensConverter(),
        SyntheticConverter(),
    ]
    wanted = list(inspect.signature(DatasetConverter.prepare).parameters)[1:]
    for converter in converters:
        assert list(inspect.signature(converter.prepare).parameters) == wanted


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_all_settings_and_their_defaults(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    settings = yaml.safe_load(text)["converter"]
    module, _, name = settings.pop("_target_").rpartition(".")
    converter = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(converter).parameters
    assert list(settings) == list(parameters)
    for key, value in settings.items():
        if not isinstance(value, dict):
            assert value == parameters[key].default, key
