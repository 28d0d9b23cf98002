"""Write the page about all parameters from the configuration. Needs no ROS.

python -m pixloc_ros.config.parameter_page > docs/guide/parameters.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pixloc_ros.config import LIVE, Config, setting
from pixloc_ros.config.parameter_file import scalar

_HEADER = """\
# Parameters

Every setting, for the node (`-p NAME:=VALUE`, a parameter file, `ros2 param`), for the command
line (`--set NAME=VALUE`, `--config FILE`, `pixloc config`) and for Python (`pixloc_ros.config`).
This page is made from the configuration:
`python -m pixloc_ros.config.parameter_page > docs/guide/parameters.md`.

Unknown names are refused, with the nearest existing one as a hint; renamed ones, with the new name;
values out of range, with the range. Settings marked **live** can be changed while the node is
running; the others are read when it is configured.
"""


def render() -> str:
    """Return the page in Markdown."""
    return _HEADER + "".join(f"\n{section}\n" for section in _sections(Config()))


def _sections(config: Config) -> Iterator[str]:
    yield _section("", "General", config)
    for name, value in config:
        if isinstance(value, BaseModel):
            yield _section(f"{name}.", name, value)


def _section(prefix: str, title: str, section: BaseModel) -> str:
    about = (type(section).__doc__ or "").strip()
    rows = [
        _row(f"{prefix}{name}", value)
        for name, value in section
        if not isinstance(value, BaseModel)
    ]
    head = ["| name | default | allowed | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {title}", about, "", *head, *rows])


def _row(name: str, value: Any) -> str:
    live, about = " **live**" if name.startswith(LIVE) else "", setting(name)
    meaning = about.description.replace("|", "\\|")
    return f"| `{name}`{live} | `{scalar(value)}` | {about.allowed} | {meaning} |"


if __name__ == "__main__":
    print(render(), end="")
