import json
from pathlib import Path

import pytest

from ranker.report.data_report import DoctorJob, bar, examine_data
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.doctor.findings import DoctorOptions
from ranker_data.reader import DataError
from ranker_data.simulator.world import WorldConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    SyntheticConverter(world=WorldConfig(num_users=200), num_parts=2).prepare(None, out)
    return out


def test_sound_data_gets_a_report(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examine_data(DoctorJob(data=data, out=None, options=DoctorOptions()))
    report = json.loads((data / "doctor" / "doctor.json").read_text())
    assert report["findings"] == []
    assert report["rows"]["train"] == report["counts"]["train"]["num_rows"]
    assert {found["field"] for found in report["field_aucs"]} >= {"item_id", "log_price"}
    page = (data / "doctor" / "doctor.html").read_text()
    for text in ("Nothing is wrong", "Unknown ids", "long_view", "default-src 'none'"):
        assert text in page
    assert "no errors, 0 warning(s)" in capsys.readouterr().out


def test_errors_are_written_and_raised(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # what is no error elsewhere: every field knows more than nothing
    options = DoctorOptions(suspect_auc=0.5, leakage_auc=0.6, severities={"unknown_ids": "off"})
    with pytest.raises(DataError, match=r"problem\(s\) in .*\n .*alone predicts label"):
        examine_data(DoctorJob(data=data, out=tmp_path / "report", options=options))
    assert "warning: field" in capsys.readouterr().out
    page = (tmp_path / "report" / "doctor.html").read_text()
    assert "<b>error</b> - label_leakage" in page


def test_foreign_names_stay_text(data: Path, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    report = examine_foreign(data, tmp_path, name)
    assert name not in report
    assert "&lt;script&gt;" in report


def examine_foreign(data: Path, folder: Path, name: str) -> str:
    text = (data / "schema.yaml").read_text()
    (data / "schema.yaml").write_text(text.replace("name: synthetic", f"name: '{name}'", 1))
    try:
        options = DoctorOptions(read_rows=False, sample_rows=10)
        examine_data(DoctorJob(data=data, out=folder, options=options))
    finally:
        (data / "schema.yaml").write_text(text)
    return (folder / "doctor.html").read_text()


def test_an_unwritable_folder_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    job = DoctorJob(data=data, out=tmp_path / "file" / "out", options=DoctorOptions(sample_rows=9))
    with pytest.raises(ValueError, match=r"cannot be written .*set out="):
        examine_data(job)


def test_bars_stay_in_their_box() -> None:
    assert [bar(value, 0.5) for value in (0.2, 0.5, 0.75, 1.0, 2.0)] == [2, 2, 120, 238, 238]
