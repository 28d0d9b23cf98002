"""The options of `pixloc map build --bag` as a source for `build_map`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pixloc_ros import config as configuration
from pixloc_ros.cli.replay import parse_setting
from pixloc_ros.config import Config
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.maps.build.from_bag.source import DriveSource
from pixloc_ros.maps.datum import AnyDatum, first_problem
from pixloc_ros.maps.files.recorded_drive import RecordedDrive
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.sensors.topics import Topics

PREFIX = "mapping."


@dataclass(frozen=True, slots=True, kw_only=True)
class BagBuild:
    """What the command line says of bags."""

    bags: Sequence[Path]
    topics: Sequence[str]
    config: Path | None
    settings: Sequence[str]
    mask: Path | None
    odometry: bool  # whether to use that of the bags
    fixes: bool
    scale_from_m: float | None
    report: Path | None
    force: bool

    def source(self, output: Path, datum: AnyDatum | None) -> DriveSource:
        """Read the bags' odometry and fixes. Raises PixlocError for what cannot be used."""
        if self.mask is not None and not self.mask.is_file():
            raise MapError(f"--mask {self.mask}: no such file")
        node, mapping = self._settings()
        return DriveSource(
            drives=self._drives(node, datum),
            mapping=mapping,
            priors=node.priors,
            mask=self.mask,
            scale_from_m=self.scale_from_m,
            report_folder=self.report or output.with_name(f"{output.name}_report"),
            force=self.force,
        )

    def _drives(self, node: Config, datum: AnyDatum | None) -> tuple[RecordedDrive, ...]:
        """The bags, without what is to be left out."""
        drives = read_drives(self.bags, node, Topics().remapped(self.topics), datum)
        if not self.odometry:
            drives = tuple(drive.without_odometry() for drive in drives)
        if not self.fixes:
            drives = tuple(drive.without_fixes() for drive in drives)
        known = next((d for d in drives if d.odometry is not None or d.fixes is not None), None)
        if self.scale_from_m is not None and known is not None:
            raise MapError(
                f"--scale-from is for bags with neither odometry nor GNSS, which '{known.name}' "
                "has: leave it out, or add --no-odometry --no-fixes"
            )
        return drives

    def _settings(self) -> tuple[Config, MappingConfig]:
        """The node's settings, and those of mapping, whose names begin with `mapping.`."""
        given = dict(parse_setting(setting) for setting in self.settings)
        mapping = {n.removeprefix(PREFIX): v for n, v in given.items() if n.startswith(PREFIX)}
        others: dict[str, Any] = {n: v for n, v in given.items() if not n.startswith(PREFIX)}
        node = (
            configuration.load(self.config, others)
            if self.config
            else configuration.from_flat(others)
        )
        known = {PREFIX + name for name in MappingConfig.model_fields}
        for name in (PREFIX + name for name in mapping if PREFIX + name not in known):
            nearest = configuration.suggestion(name, known)
            raise ConfigError(f"unknown parameter '{name}'{nearest}")
        try:
            return node, MappingConfig(**mapping)
        except ValidationError as error:
            raise ConfigError(f"--set {PREFIX}{first_problem(error)}") from None
