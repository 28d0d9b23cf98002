"""A few cases of every target with every run of the tests, always the same ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz.harness import Target, attempt
from fuzz.targets import TARGETS


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_but_a_refusal_comes_out(target: Target) -> None:
    @settings(
        max_examples=target.quick,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases())
    def check(case: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            attempt(target, case, Path(folder))

    check()
