"""`pixloc view`: a run as one page that needs nothing else."""

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
from pixloc_ros.config import Config
from pixloc_ros.replay.runner import replay

CONTENT = re.compile(r'<script type="application/json" id="content">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def run(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replayed run with its page."""
    folder = tmp_path_factory.mktemp("view") / "run"
    config = Config(map=str(street / "map"), threads=1)
    replay(street / "bag", config, folder, report=False, every=3)
    code = "import sys; from pixloc_ros.cli.main import main; sys.exit(main())"
    options = ["--map", str(street / "map"), "--bag", str(street / "bag")]
    command = [sys.executable, "-c", code, "view", str(folder), *options]
    subprocess.run(command, check=True)
    return folder


def content(run: Path) -> dict[str, Any]:
    found = CONTENT.search((run / "page.html").read_text())
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.slow
def test_the_page_has_every_frame_with_its_evidence_and_picture(run: Path, bag: Any) -> None:
    page = content(run)
    lines = [json.loads(line) for line in (run / "frames.jsonl").read_text().splitlines()]
    assert [frame["name"] for frame in page["frames"]] == [line["name"] for line in lines]
    named = {trace["name"].partition(" (")[0]: trace for trace in page["trajectory"]}
    assert {"keyframes of the map", "truth", "OK"} <= named.keys()
    assert named["OK"]["customdata"] == [i for i, x in enumerate(lines) if x["status"] == "OK"]
    first = lines[named["OK"]["customdata"][0]]["pose"]["xyz"]
    assert [named["OK"]["x"][0], named["OK"]["y"][0]] == first[:2]
    titles = [each["title"] for each in page["series"]]
    assert {"position error [m]", "probability of being wrong", "latency [ms]"} <= set(titles)
    assert all(len(each["trace"]["y"]) == len(lines) for each in page["series"])
    assert len(page["pictures"]) == len(lines)
    jpeg = base64.b64decode(page["pictures"]["0"].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    image = bag.on("/image")[0]
    assert picture.shape[:2] == (image.height, image.width)


@pytest.mark.slow
def test_the_page_loads_nothing_from_elsewhere(run: Path) -> None:
    text = (run / "page.html").read_text()
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
    options = ["view", str(tmp_path), "--output", str(tmp_path / "p.html")]
    assert CliRunner().invoke(main.build(), options).exit_code == 0
    assert "<script>alert(1)" not in (tmp_path / "p.html").read_text()
