"""The table of faults: complete in its codes, and with tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pixloc_ros
from pixloc_ros.ros.state import Cause
from pixloc_ros.types import Reason

PACKAGE = Path(pixloc_ros.__file__).parent
TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "guide" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
]


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def codes_in(pattern: str, *places: str) -> set[str]:
    """What a pattern finds in the sources below some places of the package."""
    sources = [path for place in places for path in (PACKAGE / place).rglob("*.py")]
    return {code for path in sources for code in re.findall(pattern, path.read_text())}


def test_every_row_names_tests_of_the_live_node_that_exist() -> None:
    assert len(ROWS) > 40
    defined = {
        f"{path.name}::{node.name}"
        for path in (TESTS / "ros").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    for fault, *_, tests in ROWS:
        assert quoted(tests), f"no test for: {fault}"
        assert quoted(tests) <= defined, fault


def test_every_code_of_the_node_is_in_the_table() -> None:
    refused = codes_in(r'BadMessage\(\s*"([a-z_]+)"', "sensors")
    priors = codes_in(r'"((?:gnss|odometry)_[a-z_]+)"|Counter\((gnss_stale)', "priors")
    priors = {code for codes in priors for code in codes if code}
    services = codes_in(r'Outcome\(\s*"([a-z_]+)"', "ros")
    assert len(refused) > 10 and len(priors) > 8 and len(services) > 3, "the patterns find nothing"
    told = set().union(*(quoted(codes) for _, _, _, codes, _ in ROWS))
    known = {*map(str, (*Reason, *Cause)), *refused, *priors, *services}
    assert known - told == set(), "not in the table"
    assert told - known - {"no_image", "interrupted"} == set(), "no such codes"
