"""The wheel builds and holds exactly the three packages."""

import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_holds_exactly_the_three_packages(project_root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(project_root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"ranker", "ranker_data", "ranker_kernels"}
    for needed in (
        "ranker/py.typed",
        "ranker/report/templates/report.html.j2",
        "ranker_data/gather.cpp",
        "ranker_kernels/native/din_attention.cpp",
        "ranker_kernels/native/matmul.h",
    ):
        assert needed in names
    assert "ranker_data/datasets/ebnerd.py" in names
