"""Write the node's parameter file from the configuration. Needs no ROS."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from pixloc_ros.config import Config, setting

_HEADER = """\
# Parameters of the node, with their defaults. Made from pixloc_ros/config/:
#   python -m pixloc_ros.config.parameter_file > config/localizer.yaml
"""
_WIDTH = 100


def render(config: Config) -> str:
    """Return YAML with every parameter, its description and range as a comment above it."""
    lines = ["/**/pixloc_localizer:", "  ros__parameters:", *_section(config, "", " " * 4)]
    return _HEADER + "\n".join(lines) + "\n"


def _section(section: BaseModel, prefix: str, indent: str) -> Iterator[str]:
    for name, value in section:
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _section(value, f"{prefix}{name}.", indent + "  ")
        else:
            about = setting(prefix + name)
            text = f"{about.description} [{about.allowed}]" if about.allowed else about.description
            mark = f"{indent}# "
            yield from textwrap.wrap(
                text, _WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False
            )
            yield f"{indent}{name}: {scalar(value)}"


def scalar(value: Any) -> str:
    """Return a value as YAML on one line."""
    plain = value if isinstance(value, str | int | float) else list(value)
    return yaml.safe_dump(plain, default_flow_style=True).splitlines()[0]


if __name__ == "__main__":
    print(render(Config()), end="")
