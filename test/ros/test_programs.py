"""The rig of the live tests: what it waits for never comes from a program that has ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.mark.ros
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "import sys; print('first', flush=True); sys.exit('no such card')",
            "status 1.*first\nno such card",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "status -9"),
        ("", "status 0"),
    ],
)
def test_a_node_that_has_ended_is_not_waited_for(
    program: str, said: str, tmp_path: Path, domain: int
) -> None:
    from helpers.live import Rig, running_node

    def wait() -> None:
        with (
            running_node(tmp_path / "log.txt", domain, program=("-c", program)),
            Rig(domain) as rig,
        ):
            rig.lifecycle_state()

    with pytest.raises(AssertionError) as error:
        wait()
    assert re.search(said, str(error.value), re.DOTALL)
