"""Files of other systems that tell where images were taken, as options of `pixloc localize`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.errors import ConfigError

if TYPE_CHECKING:
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.priors.global_prior import GlobalPrior

PriorFormat = Literal["poses", "ace", "planar"]


@dataclass(frozen=True, slots=True)
class PriorFiles:
    """Files of one way to place the images; without any, the map is searched.

    smaller_map: folders of the maps to align with first, which only then makes sense.
    """

    priors: Annotated[Path | None, typer.Option(help="approximate poses of the images")] = None
    prior_format: Annotated[
        PriorFormat,
        typer.Option(help="poses: like the output; ace: as ACE writes them; planar: x, y and yaw"),
    ] = "poses"
    pairs: Annotated[
        Path | None,
        typer.Option(help="instead of --priors: lines `query keyframe`, as hloc writes them"),
    ] = None
    descriptors: Annotated[
        list[Path] | None,
        typer.Option(help="instead of --priors: HDF5 with hloc's global descriptors; repeatable"),
    ] = None
    smaller_map: Annotated[
        list[Path] | None,
        typer.Option(
            help="map of the same place with smaller images, aligned with first; "
            "repeatable, smallest first"
        ),
    ] = None
    inliers: Annotated[
        Path | None,
        typer.Option(
            help="hloc's log: align with the points that it matched, from its poses or "
            "from --priors"
        ),
    ] = None
    matches: Annotated[
        Path | None,
        typer.Option(
            help="hloc's HDF5 of matches (LoFTR and others): PnP with the references of --pairs"
        ),
    ] = None
    keypoints: Annotated[
        Path | None, typer.Option(help="with --matches: hloc's HDF5 of keypoints")
    ] = None
    colmap: Annotated[
        Path | None,
        typer.Option(help="with --inliers or --matches: COLMAP model that has the points"),
    ] = None
    prior_sigma: Annotated[
        str, typer.Option(help="METRES,DEGREES: sigmas of the priors, per axis")
    ] = "1.0,2.0"

    def __bool__(self) -> bool:
        return bool(self.priors or self.pairs or self.descriptors or self.inliers)

    def check(self) -> None:
        """Raise ConfigError for files that do not go together, or of which one is missing."""
        if sum(bool(given) for given in (self.priors, self.pairs, self.descriptors)) > 1:
            raise ConfigError("give one of --priors, --pairs and --descriptors")
        if self.inliers and (not self.colmap or self.pairs or self.descriptors or self.matches):
            raise ConfigError("--inliers needs --colmap, and goes with --priors or alone")
        if bool(self.matches) != bool(self.keypoints) or (
            self.matches and not (self.pairs and self.colmap)
        ):
            raise ConfigError("--matches needs --keypoints, --pairs and --colmap")
        if self.colmap and not (self.inliers or self.matches):
            raise ConfigError("--colmap goes with --inliers or --matches")
        self._sigma()
        if self.smaller_map and not self:
            raise ConfigError("--smaller-map needs --priors, --pairs, --descriptors or --inliers")
        if self.smaller_map and self.inliers:
            raise ConfigError("--inliers are points of one map: leave out --smaller-map")

    def digests(self) -> dict[str, str]:
        """Return the options that were given with the SHA-256 of their files."""
        from pixloc_ros.maps.schema import file_sha256

        given = {"prior_format": self.prior_format, "prior_sigma": self.prior_sigma}
        single = ("priors", "pairs", "inliers", "matches", "keypoints")
        files = {name: [getattr(self, name)] for name in single}
        files |= {"descriptors": self.descriptors or []}
        for name, paths in files.items():
            given[name] = " ".join(file_sha256(path) for path in paths if path is not None)
        return given | {"colmap": str(self.colmap)}

    def read(self, localizer: Localizer, names: list[str]) -> GlobalPrior | None:
        """Return what the files know about the named images. Raises DataError for wrong files."""
        from pixloc_ros.priors import file_priors

        options = localizer.config.retrieval
        if self.inliers:
            return self._logged_matches(localizer, names)
        if self.priors:
            return self._poses(localizer, names)
        if self.matches:
            return self._feature_matches(localizer)
        if self.pairs:
            return file_priors.read_pairs(localizer.map, self.pairs, names, options)
        if self.descriptors:
            return file_priors.read_descriptors(localizer.map, self.descriptors, names, options)
        return None

    def _logged_matches(self, localizer: Localizer, names: list[str]) -> GlobalPrior:
        from pixloc_ros.geometry.trajectory import read_poses
        from pixloc_ros.maps.files.colmap import read_model
        from pixloc_ros.priors.logged_matches import read_logged_matches

        assert self.inliers is not None and self.colmap is not None
        model, given = read_model(self.colmap), read_poses(self.priors) if self.priors else None
        return read_logged_matches(localizer.map, self.inliers, model, names, self._sigma(), given)

    def _feature_matches(self, localizer: Localizer) -> GlobalPrior:
        from pixloc_ros.maps.files import hloc
        from pixloc_ros.maps.files.colmap import read_model
        from pixloc_ros.priors.feature_matches import FeatureMatches
        from pixloc_ros.priors.file_priors import map_from_world

        assert self.matches and self.keypoints and self.pairs and self.colmap
        model, pairs = read_model(self.colmap), hloc.read_pairs(self.pairs)
        T_map_world = map_from_world(localizer.map)
        return FeatureMatches(model, T_map_world, self.keypoints, self.matches, pairs)

    def _poses(self, localizer: Localizer, names: list[str]) -> GlobalPrior:
        from pixloc_ros.priors import file_priors

        assert self.priors is not None
        map_, config = localizer.map, localizer.config.priors
        if self.prior_format == "planar":
            return file_priors.read_planar_priors(map_, self.priors, names, config)
        if self.prior_format == "ace":
            return file_priors.read_ace_priors(map_, self.priors, names, self._sigma())
        return file_priors.read_pose_priors(map_, self.priors, names, self._sigma())

    def _sigma(self) -> tuple[float, float]:
        text = self.prior_sigma
        metres, degrees = parse_numbers("--prior-sigma", text, "METRES,DEGREES", "2.0,3.0")
        if metres <= 0 or degrees <= 0:
            raise ConfigError(f"--prior-sigma {text}: sigmas are above zero")
        return metres, degrees
