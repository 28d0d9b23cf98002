"""`pixloc replay --view`: a file that the rerun viewer shows, read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pixloc_ros.errors import ConfigError
from pixloc_ros.visualization.recording import rerun_sdk

CODE = "import sys; from pixloc_ros.cli.main import main; sys.exit(main())"


# As if the library were not installed.
WITHOUT_RERUN = f"import sys; sys.modules['rerun'] = None; {CODE}"


def run_replay(street: Path, folder: Path, code: str = CODE) -> subprocess.CompletedProcess[str]:
    arguments = ["replay", str(street / "bag"), "--map", str(street / "map"), "--no-report"]
    arguments += ["--every", "4", "--output", str(folder / "run"), "--view", str(folder / "a.rrd")]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_can_be_looked_at(street: Path, tmp_path: Path) -> None:
    done = run_replay(street, tmp_path)
    assert done.returncode == 0, done.stderr
    printer = [sys.executable, "-m", "rerun_cli", "rrd", "print", str(tmp_path / "a.rrd")]
    printed = subprocess.run(printer, capture_output=True, text=True, check=True).stdout
    for entity in (
        *("/map/points", "/map/keyframes", "/vehicle/prior", "/vehicle/pose/sigma", "/path"),
        *("/vehicle/points", "/camera/image", "/camera/image/pose", "/figures/cost", "/verdict"),
    ):
        assert entity in printed, f"{entity} is not in the file"
    assert not list(tmp_path.glob(".*")), "a part of a file is left"


@pytest.mark.slow
def test_without_rerun_the_run_is_not_begun(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match="pip install 'pixloc_ros"):
        rerun_sdk()
    done = run_replay(street, tmp_path, WITHOUT_RERUN)
    assert done.returncode == 1
    assert "error: --view needs rerun-sdk" in done.stderr
    assert not (tmp_path / "run").exists()
