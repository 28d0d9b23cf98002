"""What the pages say exists: commands with their options, settings, files, links."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from pixloc_ros.cli import main
from pixloc_ros.config import RENAMED, REPLACED, Config, flatten

ROOT = Path(__file__).parents[2]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "QUALITY_DECLARATION.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXTERNAL = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"')
SETTING = re.compile(
    r"`([a-z]+\.[a-z0-9_]+)`|--set ([a-z]+\.[a-z0-9_]+)=|-p ([a-z]+\.[a-z0-9_]+):="
)
SOURCE = re.compile(
    r"(?:pixloc_ros|test|tools|examples|config|launch|docs)/[\w./-]*\.(?:py|md|yaml|sh|png|jpg)"
)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `pixloc` and `python -m research` command in the code blocks of a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4,}(.*)$", text, re.MULTILINE):
        words = [word.strip("\"'[]") for word in line.split(" #")[0].split()]
        for start in (["pixloc"], ["python", "-m", "research"]):
            for i in range(len(words)):
                if words[i : i + len(start)] == start:
                    yield words[i:]


def program(words: list[str]) -> tuple[Any, list[str]]:
    """The command line that the words call, and what follows its name."""
    research = words[0] == "python"
    return command_line(research), words[3 if research else 1 :]


@cache
def command_line(research: bool) -> Any:
    """`pixloc`, or that of the research tools; making one takes a while."""
    from research.__main__ import build as build_research

    return typer.main.get_command(build_research() if research else main.build())


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_can_be_given_so(page: Path) -> None:
    for words in commands(page):
        command, rest = program(words)
        while hasattr(command, "commands") and rest and rest[0][0] not in ".-":
            assert rest[0] in command.commands, f"{page_id(page)}: {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {"--help"} | {option for each in command.params for option in each.opts}
        known |= {option for each in command.params for option in each.secondary_opts}
        unknown = [word for word in rest if word.startswith("--") and word not in known]
        assert unknown == [], f"{page_id(page)}: {' '.join(words)}"
        if "..." not in words and "--help" not in words:
            assert_parses(command, rest)


def assert_parses(command: Any, rest: list[str]) -> None:
    """Arguments are complete and of their types, but for files that are the reader's."""
    try:
        command.make_context("documented", list(rest))
    except click.UsageError as error:
        if "does not exist" not in error.format_message():
            raise


def lines_of_code(page: Path) -> Iterator[str]:
    """The lines of the code blocks of a page, without comments; continued lines as one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4,}(.*)$", text, re.MULTILINE):
        if code := line.split(" #")[0].strip():
            yield code


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_launch_files_with_their_arguments_and_executables_exist(page: Path) -> None:
    installed = (ROOT / "CMakeLists.txt").read_text()
    for line in lines_of_code(page):
        if launched := re.search(r"ros2 launch pixloc_ros (\S+)(.*)", line):
            source = (ROOT / "launch" / launched[1]).read_text()
            if launched[1] != "localizer.launch.py":  # it passes the arguments of that one on
                source += (ROOT / "launch" / "localizer.launch.py").read_text()
            for argument in re.findall(r"(\w+):=", launched[2]):
                assert f'"{argument}"' in source, f"{launched[1]} has no argument {argument}"
        for name in re.findall(r"(?:ros2 run pixloc_ros|lib/pixloc_ros/) ?(\w+)", line):
            assert re.search(rf"set\(executables [^)]*\b{name}\b", installed), name


# Commands of the pages for users that no test runs or looks into, by what they begin with. Where
# one stands, the page says what was not run.
NOT_RUN = (
    *("cd ", "git clone", "rosdep", "python3 -m venv", "colcon", ". install", "kill"),
    *("ros2 bag", "ros2 service", "ros2 topic", "ros2 param", "ros2 security", "ros2 launch nav2"),
    *("ros2 run robot_localization", "docker", "rerun ", "torchrun", "/usr/src/tensorrt/bin/"),
    *("export ROS_", "build/tools/bin/"),
)
INSTALLED = ("pip install", "build/tools/bin/pip install")  # by `make setup`, as extras of ours
LOOKED_INTO = (
    *("pixloc ", "ros2 launch pixloc_ros", "ros2 run pixloc_ros", "build/ros/install/lib"),
    *("PYTHONPATH=tools python -m research", ". tools/ros_env.sh", "python tools/soak.py"),
    "python examples/",  # test_examples.py runs them
)
LISTINGS = ("my_map/", "garage/", "/data/cmu/slice3 lacks")  # no commands
GUIDES = [page for page in PAGES if page.parent.name == "guide" and page.name != "api.md"]
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "index.md"]


def blocks(page: Path) -> Iterator[str]:
    """The code blocks of a page, indented or fenced, without their indentation."""
    block: list[str] = []
    fenced = False
    for line in [*page.read_text(encoding="utf-8").splitlines(), "end"]:
        fence = line.lstrip().startswith("```")
        if not fence and (fenced or line.startswith("    ") or (block and not line)):
            block.append(line)
        elif block:
            yield textwrap.dedent("\n".join(block)).strip("\n")
            block = []
        fenced = fenced != fence


def is_python(block: str) -> bool:
    try:
        return bool(ast.parse(block).body)
    except SyntaxError:
        return False


def is_yaml(block: str) -> bool:
    try:
        return isinstance(yaml.safe_load(block), dict | list)
    except yaml.YAMLError:
        return False


def shell_lines(page: Path) -> Iterator[str]:
    """What is neither Python nor YAML nor a listing; continued lines as one."""
    for block in blocks(page):
        if is_python(block) or is_yaml(block) or block.startswith(LISTINGS):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if code := line.split(" #")[0].strip():
                yield code


@pytest.mark.parametrize("page", [*FRONT, *GUIDES], ids=page_id)
def test_every_command_is_checked_or_marked(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    unchecked = []
    for line in shell_lines(page):
        made = re.match(r"make ([\w-]+)", line)
        if made and re.search(rf"^{made[1]}:", makefile, re.MULTILINE):
            continue
        if not line.startswith((*LOOKED_INTO, *INSTALLED)):
            unchecked.append(line)
    unknown = [line for line in unchecked if not line.startswith(NOT_RUN)]
    assert not unknown, f"{page.name}: neither checked nor known not to be: {unknown}"
    said = re.search(
        r"not (run|verified|tried|built)|could (not )?be|was not", page.read_text(), re.I
    )
    assert said or not unchecked, f"{page.name} does not say that it was not run: {unchecked}"


@pytest.mark.parametrize("page", [*FRONT, *GUIDES], ids=page_id)
def test_python_on_the_pages_imports_what_exists(page: Path) -> None:
    for block in filter(is_python, blocks(page)):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pixloc_ros"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_options_of_the_soak_exist() -> None:
    known = set(re.findall(r'"(--?[a-z-]+)"', (ROOT / "tools" / "soak.py").read_text()))
    for page in PAGES:
        for line in lines_of_code(page):
            if line.startswith("python tools/soak.py"):
                assert set(re.findall(r" (--?[a-z][a-z-]*)", line)) <= known, line


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_exist(page: Path) -> None:
    settings = {name for name, _ in flatten(Config())}
    sections = {name.partition(".")[0] for name in settings if "." in name}
    before = RENAMED.keys() | REPLACED.keys()
    known = settings | (before if page.name == "CHANGELOG.md" else set())
    named = {next(filter(None, groups)) for groups in SETTING.findall(page.read_text("utf-8"))}
    unknown = {name for name in named if name.partition(".")[0] in sections} - known
    assert {name for name in unknown if not name.endswith((".py", ".md"))} == set()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = set(SOURCE.findall(page.read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES[:3], ids=page_id)
def test_links_of_the_front_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Broken links and anchors, pages outside of the navigation and unknown names are errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 3
    assert {found for page in pages for found in EXTERNAL.findall(page.read_text("utf-8"))} == set()
    reference = (tmp_path / "guide" / "api.html").read_text(encoding="utf-8")
    assert "T_map_base" in reference and "build_map" in reference
