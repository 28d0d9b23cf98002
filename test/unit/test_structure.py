"""What holds for the sources as a whole, beyond what the linters check."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pixloc_ros

PACKAGE = Path(pixloc_ros.__file__).parent
TESTS = Path(__file__).parents[1]
SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_tests_share_through_the_helpers_only():
    tests = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}
    for path in TESTS.rglob("*.py"):
        for module in imports(ast.parse(path.read_text())):
            name = module.rpartition(".")[2]
            assert name not in tests and not module.startswith("."), f"{path} imports {module}"


def test_only_the_ros_package_imports_our_messages():
    """A pip installation has no pixloc_ros.msg."""
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith(("pixloc_ros.msg", "pixloc_ros.srv"))
    }
    assert importers == {"ros"}


def test_no_class_name_means_two_things():
    places = defaultdict(list)
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
