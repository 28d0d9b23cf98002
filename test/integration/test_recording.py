"""What a run leaves to be looked at: a file for the rerun viewer, read back, and a page."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pixloc_ros.cli import main
from pixloc_ros.errors import BagError, ConfigError, PixlocError
from pixloc_ros.types import Status
from pixloc_ros.visualization.overlay import STATUS_COLORS
from pixloc_ros.visualization.recording import rerun_sdk

CONTENT = re.compile(r'<script type="application/json" id="content">(.*?)</script>', re.DOTALL)


def replay_words(street: Path, folder: Path) -> list[str]:
    words = ["replay", str(street / "bag"), "--map", str(street / "map"), "--no-report"]
    words += ["--every", "4", "--output", str(folder / "run"), "--view", str(folder / "a.rrd")]
    return words


@pytest.fixture(scope="module")
def run(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, beside which the viewer's file lies."""
    folder = tmp_path_factory.mktemp("viewed")
    command = [sys.executable, "-m", "pixloc_ros.cli.main", *replay_words(street, folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
def test_a_run_can_be_looked_at(run: Path) -> None:
    printer = [sys.executable, "-m", "rerun_cli", "rrd", "print", str(run.parent / "a.rrd")]
    printed = subprocess.run(printer, capture_output=True, text=True, check=True).stdout
    for entity in (
        *("/map/points", "/map/keyframes", "/map/truth", "/prior", "/vehicle/axes"),
        *("/trajectory/0", "/trajectory/0/sigma", "/aligned", "/camera/image"),
        *("/camera/image/points/pose", "/camera/image/points/prior", "/verdict/status"),
        *("/verdict/reason", "/verdict/words", "/figures/evidence/wrong_probability"),
        *("/figures/evidence/cost", "/figures/metres/error", "/figures/metres/sigma"),
    ):
        assert entity in printed, f"{entity} is not in the file"
    assert not list(run.parent.glob(".*")), "a part of a file is left"


@pytest.mark.slow
def test_without_rerun_the_run_is_not_begun(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match="pip install 'pixloc_ros"):
        rerun_sdk()
    done = CliRunner().invoke(main.build(), replay_words(street, tmp_path))
    assert isinstance(done.exception, ConfigError)
    assert "--view needs rerun-sdk" in str(done.exception)
    assert not (tmp_path / "run").exists()


def content(page: Path) -> dict[str, Any]:
    found = CONTENT.search(page.read_text())
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.fixture(scope="module")
def page(run: Path, street: Path) -> Path:
    """The page of the run, as the command writes it."""
    view(run, "--map", str(street / "map"), "--bag", str(street / "bag"))
    return run / "page.html"


def view(run: Path, *options: str) -> None:
    done = CliRunner().invoke(main.build(), ["view", str(run), *options])
    if isinstance(done.exception, PixlocError):
        raise done.exception
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_page_has_every_frame_with_its_evidence_and_picture(run: Path, page: Path) -> None:
    shown = content(page)
    lines = [json.loads(line) for line in (run / "frames.jsonl").read_text().splitlines()]
    assert [frame["name"] for frame in shown["frames"]] == [line["name"] for line in lines]
    named = {trace["name"].partition(" (")[0]: trace for trace in shown["trajectory"]}
    assert {"keyframes of the map", "truth", "OK"} <= named.keys()
    assert named["OK"]["customdata"] == [i for i, x in enumerate(lines) if x["status"] == "OK"]
    first = lines[named["OK"]["customdata"][0]]["pose"]["xyz"]
    assert [named["OK"]["x"][0], named["OK"]["y"][0]] == first[:2]
    titles = [each["title"] for each in shown["series"]]
    assert {"position error [m]", "probability of being wrong", "latency [ms]"} <= set(titles)
    assert all(len(each["trace"]["y"]) == len(lines) for each in shown["series"])
    assert len(shown["pictures"]) == len(lines)
    jpeg = base64.b64decode(shown["pictures"]["0"].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (192, 320, 3)  # as the fixture `street` has it
    accepted = np.array(STATUS_COLORS[Status.OK])[::-1]
    assert (np.abs(picture.astype(int) - accepted).max(-1) < 40).sum() > 100  # points of the map


@pytest.mark.slow
def test_a_page_needs_the_topics_with_which_the_bag_was_replayed(run: Path, street: Path) -> None:
    bag = ("--map", str(street / "map"), "--bag", str(street / "bag"))
    with pytest.raises(BagError, match="'/front' \\(image\\)"):
        view(run, *bag, "--topic", "image=/front")


@pytest.mark.slow
def test_the_page_loads_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    tags = re.findall(r"<(?:script|link|img|iframe)[^>]*>", text.split("<script>")[0])
    tags += re.findall(r"<(?:link|iframe)\b[^>]*>|<script src[^>]*>", text[-5000:])
    assert not [tag for tag in tags if "http" in tag]
    assert "plotly.js" in text
    assert len(text) < 12e6


@pytest.mark.slow
def test_text_of_a_frame_cannot_end_the_script(run: Path, tmp_path: Path) -> None:
    line = json.loads((run / "frames.jsonl").read_text().splitlines()[0])
    line["message"] = "</script><script>alert(1)</script>"
    (tmp_path / "frames.jsonl").write_text(json.dumps(line) + "\n")
    view(tmp_path, "--output", str(tmp_path / "p.html"))
    assert "<script>alert(1)" not in (tmp_path / "p.html").read_text()
