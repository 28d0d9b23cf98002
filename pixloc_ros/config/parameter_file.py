"""The node's parameter file, written from the configuration. Needs no ROS."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from pixloc_ros.config import Config

_HEADER = """\
# Parameters of the node, with their defaults. Made from pixloc_ros/config/:
#   python -m pixloc_ros.config.parameter_file > config/localizer.yaml
"""


def render(config: Config) -> str:
    """YAML with every parameter and its description as a comment."""
    lines = ["/**/pixloc_localizer:", "  ros__parameters:", *_section(config, indent=4)]
    return _HEADER + "\n".join(lines) + "\n"


def _section(section: BaseModel, indent: int) -> list[str]:
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            lines += [f"{' ' * indent}{name}:", *_section(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{name}: {scalar(value)}  # {field.description}")
    return lines


def scalar(value: Any) -> str:
    """A value as YAML on one line."""
    plain = value if isinstance(value, str | int | float) else list(value)
    return yaml.safe_dump(plain, default_flow_style=True).splitlines()[0]


if __name__ == "__main__":
    print(render(Config()), end="")
