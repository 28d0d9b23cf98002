"""The command line as its users meet it: help, settings, figures in files, one-line errors."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from helpers.faults import stop_after
from pixloc_ros import config as configuration
from pixloc_ros.cli import main
from pixloc_ros.config import Config
from pixloc_ros.errors import PixlocError

runner = CliRunner()


def run(*arguments: str) -> str:
    result = runner.invoke(main.build(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


BELOW = ("map build", "map info", "bag create", "bag from-video")


@pytest.mark.parametrize("command", [*main.COMMANDS, *BELOW])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    text = run(*command.split(), "--help")
    assert "Example" in text


def test_the_printed_settings_load_again(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(run("config", "--yaml"))
    assert configuration.load(path) == Config()
    assert yaml.safe_load(path.read_text())["alignment"]["robust_scale"] == 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("priors: {doubt_frames: 3}", "is now called 'priors.fallback_after_misses'"),
        ("alignment: {robust_scal: 1}", "did you mean 'alignment.robust_scale'"),
        ("alignment: {robust_scale: -1}", "alignment.robust_scale"),
        ("[1, 2]", "not a mapping"),
        ("a: b: c", "cannot read"),
    ],
)
def test_a_settings_file_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(configuration.ConfigError, match=message) as error:
        configuration.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_an_expected_error_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pixloc_ros.cli.main", "map", "info", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_doctor_prints_the_extras_of_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    result = runner.invoke(main.build(), ["doctor"], env={"COLUMNS": "200"})
    assert "pip install 'pixloc_ros[remote]'" in result.output


@pytest.mark.slow
def test_doctor_finds_what_is_needed_and_names_a_broken_map(street: Path, tmp_path: Path) -> None:
    assert "keyframes" in run("doctor", "--map", str(street / "map"))
    wide = {"COLUMNS": "400"}  # in a narrow table the lines of all columns alternate
    result = runner.invoke(main.build(), ["doctor", "--map", str(tmp_path)], env=wide)
    assert result.exit_code == 1
    assert f"{tmp_path} is not a map" in result.output


@pytest.mark.slow
def test_shots_from_wrong_priors_end_at_the_truth(street: Path, tmp_path: Path) -> None:
    drive, figures = street / "data" / "drive", tmp_path / "shots.json"
    run(
        *("shots", "--map", str(street / "map"), "--every", "5", "--offset", "1,2"),
        *("--offset", "none"),
        *("--images", str(drive / "images"), "--meta", str(drive / "meta.json")),
        *("--output", str(figures)),
    )
    for found in (json.loads(figures.read_text())[case] for case in ("1,2", "none")):
        assert found["shots"] >= 3
        assert found["found_10cm"] == 1.0
        assert found["false_accepts"] == 0
        assert found["median_m"] < 0.02


@pytest.mark.slow
def test_shots_that_are_stopped_leave_what_is_done(street: Path, tmp_path: Path, monkeypatch):
    drive, figures = street / "data" / "drive", tmp_path / "shots.json"
    arguments = ["--map", street / "map", "--every", "5", "--offset", "1,2", "--output", figures]
    arguments += ["--images", drive / "images", "--meta", drive / "meta.json"]
    figures.write_text("of an earlier run")
    monkeypatch.setattr("pixloc_ros.cli.shots.track", stop_after(2))
    assert runner.invoke(main.build(), ["shots", *map(str, arguments)]).exit_code != 0
    assert figures.read_text() == "of an earlier run"
    found = json.loads((tmp_path / "shots.partial.json").read_text())["1,2"]
    assert found["shots"] == 2
    assert found["interrupted"].startswith("after 2 of ")


@pytest.mark.slow
def test_shots_of_a_broken_image_name_it(street: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(street / "data" / "drive" / "images", images)
    broken = min(images.iterdir())
    broken.write_bytes(broken.read_bytes()[:100])
    meta = street / "data" / "drive" / "meta.json"
    arguments = ["--map", street / "map", "--images", images, "--meta", meta, "--offset", "1,2"]
    result = runner.invoke(main.build(), ["shots", *map(str, arguments)])
    assert isinstance(result.exception, PixlocError)
    assert broken.name in str(result.exception)


@pytest.mark.slow
def test_the_benchmark_writes_every_stage_and_ends_what_it_ran_beside(tmp_path: Path) -> None:
    figures = tmp_path / "benchmark.json"
    before = {child.pid for child in psutil.Process().children()}
    beside = ("--beside", "1", "--neighbour", "torch")
    small = ("--size", "160x96", "--runs", "3", "--set", "view.max_points=100")
    run("benchmark", *small, *beside, "--json", str(figures))
    content = json.loads(figures.read_text())
    assert content["beside"] == {"count": 1, "kind": "torch"}
    assert {child.pid for child in psutil.Process().children()} == before
    assert content["machine"]["gflop_per_s"] > 0
    stages = {row["stage"]: row for row in content["rows"]}
    assert any("network 160x96" in stage for stage in stages)
    assert stages["LM iteration, stride 2, 16 x 100 points"]["floor_ms"] > 0
    assert all(row["median_ms"] > 0 for row in stages.values())


def test_commands_that_compute_nothing_wait_for_no_torch() -> None:
    code = "import sys; from pixloc_ros.cli import main; main.build('config'); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- how commands end -----------------------------------------------------------------------------

ENDING = """
import errno, os, signal, time
import typer
from pixloc_ros.cli.main import run
from pixloc_ros.common.progress import keeping
from pixloc_ros.errors import DataError

app = typer.Typer()

@app.command()
def work(how: str) -> None:
    if how == "interrupted at once":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    with keeping("out has the first half: the same command goes on there"):
        if how == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        if how == "disk full":
            raise OSError(errno.ENOSPC, "No space left on device", "out\\x1b[2J/a")
        raise DataError("a.png is cut\\noff")

run(app)
"""


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("interrupted at once", 130, "interrupted; nothing is kept"),
        ("interrupted", 130, "interrupted; out has the first half: the same command goes on there"),
        (
            "disk full",
            1,
            "error: out\\x1b[2J/a: No space left on device; out has the first half: "
            "the same command goes on there",
        ),
        (
            "data",
            1,
            "error: a.png is cut off; out has the first half: the same command goes on there",
        ),
    ],
)
def test_a_command_that_is_stopped_says_in_one_line_what_is_kept(how, code, line) -> None:
    command = [sys.executable, "-c", ENDING, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, f"{line}\n")


def test_ctrl_c_while_the_commands_are_loaded_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(main, "prepare_process", lambda: None)
    monkeypatch.setattr(main, "build", lambda called: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            main.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; nothing is kept\n"
