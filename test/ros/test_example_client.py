"""The example that talks to the node, beside a node that gets images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.live import PATIENCE_S, environment
from helpers.messages import up_to_frame, without
from helpers.programs import watched

CLIENT = Path(__file__).parents[2] / "examples" / "node_client.py"


@pytest.mark.ros
@pytest.mark.slow
def test_the_client_relocalizes_and_prints_poses(
    rig: Any, node: tuple[subprocess.Popen[bytes], int], bag: Any, tmp_path: Path
) -> None:
    messages = without(bag)
    rig.play(up_to_frame(messages, 0))
    begun = rig.report().get("count relocalization.begun")
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        client = subprocess.Popen(
            [sys.executable, str(CLIENT), "--relocalize", "--poses", "1"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(node[1]),
        )
    try:
        with watched(client, said, node[1], may_end=True):
            rig.until(
                lambda: rig.diagnostics.get("count relocalization.begun") != begun, "the client"
            )
        for frame in range(1, 12):
            if client.poll() is None:
                rig.play(up_to_frame(messages, frame)[len(up_to_frame(messages, frame - 1)) :])
        assert client.wait(PATIENCE_S) == 0
    finally:
        client.kill()
        client.wait()
    lines = said.read_text().splitlines()
    assert any(line.startswith("relocalized: True (ok)") for line in lines), lines
    assert any("+-" in line for line in lines), lines
