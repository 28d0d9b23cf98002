"""The public names: what `from pixloc_ros import ...` gives, and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pixloc_ros


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_public_name_is_what_its_module_defines():
    for name in pixloc_ros.__all__:
        value = getattr(pixloc_ros, name)
        assert value.__name__ == name
        assert getattr(sys.modules[value.__module__], name) is value


def test_public_names_are_listed_for_completion():
    assert set(pixloc_ros.__all__) <= set(dir(pixloc_ros))


def test_unknown_names_are_refused():
    with pytest.raises(ImportError, match="Localiser"):
        from pixloc_ros import Localiser  # type: ignore[attr-defined] # noqa: F401


def test_importing_the_package_imports_no_library():
    heavy = ["torch", "numpy", "cv2", "pydantic", "scipy", "rclpy"]
    code = f"import pixloc_ros, sys; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_every_public_name_is_imported_for_type_checkers():
    """A type checker sees the block under TYPE_CHECKING, an interpreter the table below it."""
    with open(pixloc_ros.__file__, encoding="utf-8") as file:
        block = file.read().partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    words = block.replace(",", " ").split()
    assert [name for name in pixloc_ros.__all__ if name not in words] == []
