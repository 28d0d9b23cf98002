"""The options that name a map and settings, which many commands have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pixloc_ros import config as configuration
from pixloc_ros.common.foreign_files import parse_yaml
from pixloc_ros.config import Config
from pixloc_ros.errors import ConfigError

MapOption = Annotated[Path, typer.Option("--map", help="folder of the map")]
AnyMapOption = Annotated[str, typer.Option("--map", help="folder of the map, or its URL")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file with settings")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="name=value of a setting, repeatable; see `pixloc config`"),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N")]


@dataclass(frozen=True, slots=True)
class SettingsOptions:
    """Settings from a file and from the command line, which has precedence."""

    config: ConfigOption = None
    given: SetOption = None
    device: DeviceOption = None

    def resolve(
        self, map_folder: str | Path, *always: str, defaults: Mapping[str, Any] | None = None
    ) -> Config:
        """Return all settings for a map. Raises ConfigError.

        always: `name=value` that the command sets, whatever is given.
        defaults: values by name that hold where no file is given.
        """
        overrides = dict(parse_setting(setting) for setting in [*(self.given or []), *always])
        overrides["map"] = str(map_folder)
        if self.device is not None:
            overrides["device"] = self.device
        if self.config is not None:
            return configuration.load(self.config, overrides)
        return configuration.from_flat({**(defaults or {}), **overrides})


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `name=value`; the value is parsed as YAML. Raises ConfigError."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--set {text}: expected name=value, e.g. alignment.robust_scale=0.2")
    try:
        return name.strip(), parse_yaml(value)
    except ValueError:
        raise ConfigError(f"--set {text}: '{value}' is not a value") from None
