"""The options of `pixloc map build --bag`, and the source that they make for `build_map`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixloc_ros import config as configuration
from pixloc_ros.cli.settings import parse_setting
from pixloc_ros.config import Config
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.maps.files.recorded_drive import RecordedDrive
from pixloc_ros.sensors.topics import Topics

if TYPE_CHECKING:
    from pixloc_ros.maps.build.from_bag.source import DriveSource

PREFIX = "mapping."


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingBagOptions:
    """What the command line says of bags, besides where they are."""

    topic: Annotated[
        list[str] | None,
        typer.Option(help="part=/topic of the bags, e.g. image=/cam0/image_raw; repeatable"),
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="for bags: the node's YAML file (frames, cameras, antenna)")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="for bags: name=value of a setting of the node or of mapping, as in "
            "mapping.keyframe_spacing_m=2; repeatable",
        ),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(help="for bags: image that is black where the vehicle itself is visible"),
    ] = None
    odometry: Annotated[bool, typer.Option(help="for bags: use their odometry")] = True
    fixes: Annotated[bool, typer.Option(help="for bags: use their GNSS fixes")] = True
    scale_from: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="for bags with neither odometry nor GNSS: straight distance in metres "
            "from the first keyframe to the last",
        ),
    ] = None
    report: Annotated[
        Path | None, typer.Option(help="for bags: folder of the report; default: OUTPUT_report")
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="for bags: write the map even if it is not good")
    ] = False

    def source(self, bags: Sequence[Path], output: Path, datum: AnyDatum | None) -> DriveSource:
        """Read the bags' odometry and fixes. Raises PixlocError for what cannot be used."""
        # Imported here because matplotlib takes a second.
        from pixloc_ros.maps.build.from_bag.source import DriveSource

        if self.mask is not None and not self.mask.is_file():
            raise MapError(f"--mask {self.mask}: no such file")
        node, mapping = self._settings()
        return DriveSource(
            drives=self._drives(bags, node, datum),
            mapping=mapping,
            priors=node.priors,
            mask=self.mask,
            scale_from_m=self.scale_from,
            report_folder=self.report or output.with_name(f"{output.name}_report"),
            force=self.force,
        )

    def _drives(
        self, bags: Sequence[Path], node: Config, datum: AnyDatum | None
    ) -> tuple[RecordedDrive, ...]:
        """The bags, without what is to be left out."""
        from pixloc_ros.replay.recorded_drive import read_drives

        drives = read_drives(bags, node, Topics().remapped(self.topic or []), datum)
        if not self.odometry:
            drives = tuple(drive.without_odometry() for drive in drives)
        if not self.fixes:
            drives = tuple(drive.without_fixes() for drive in drives)
        known = next((d for d in drives if d.odometry is not None or d.fixes is not None), None)
        if self.scale_from is not None and known is not None:
            raise MapError(
                f"--scale-from is for bags with neither odometry nor GNSS, which '{known.name}' "
                "has: leave it out, or add --no-odometry --no-fixes"
            )
        return drives

    def _settings(self) -> tuple[Config, MappingConfig]:
        """The node's settings, and those of mapping, whose names begin with `mapping.`."""
        given = dict(parse_setting(setting) for setting in self.settings or [])
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
        except ConfigError as error:
            raise ConfigError(f"--set of {PREFIX.rstrip('.')}: {error}") from None
