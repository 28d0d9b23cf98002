"""`pixloc map build`: turn the options of the command line into a source for `build_map`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.map_from_bag import MappingBagOptions
from pixloc_ros.cli.map_sources import PlaceOptions, SourceOptions
from pixloc_ros.cli.map_table import map_table
from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import FeaturesConfig
from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
from pixloc_ros.maps.build.builder import BuildOptions, MapSource, build_map
from pixloc_ros.maps.schema import RowType, Storage

DEFAULT = BuildOptions()
NETWORK = FeaturesConfig()


@option_groups
def build(
    output: Annotated[Path, typer.Option(help="map folder to write")],
    *,
    given: SourceOptions,
    place: PlaceOptions,
    weights: Annotated[
        str, typer.Option(help="name of packaged weights, or a path")
    ] = NETWORK.weights,
    max_side_px: Annotated[
        int, typer.Option(help="larger images, and later queries, are reduced to this longer side")
    ] = MAX_SIDE_PX,
    features: Annotated[
        Storage,
        typer.Option(help="store the features of each observation, or their average per point"),
    ] = DEFAULT.features,
    rows: Annotated[
        RowType,
        typer.Option(help="number type of stored features; float16 doubles the size of the map"),
    ] = DEFAULT.row_type,
    tile: Annotated[
        float, typer.Option(min=0, help="side of a tile in metres; 0: one tile")
    ] = DEFAULT.tile_m,
    keyframe_step: Annotated[
        int, typer.Option(min=1, help="take every N-th image by name")
    ] = DEFAULT.keyframe_step,
    min_track_length: Annotated[
        int, typer.Option(min=1, help="minimum number of images that observe a point")
    ] = DEFAULT.min_track_length,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    workers: Annotated[
        int, typer.Option(min=1, help="number of processes that extract features")
    ] = 1,
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="address of a Ray cluster that extracts the features instead"
        ),
    ] = "",
    bags: MappingBagOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Build a map: from a recorded drive, from a COLMAP model, or from images with known poses.

    An interrupted build continues when it is started again.

    Example: pixloc map build --bag drive --output my_map
    """
    given.check()
    datum = place.parse_datum()
    source: MapSource = bags.source(given.bag, output, datum) if given.bag else given.source()
    options = BuildOptions(
        features=features,
        row_type=rows,
        tile_m=tile,
        min_track_length=min_track_length,
        keyframe_step=keyframe_step,
        axes=place.axes,
        datum=datum,
        T_base_cam=place.parse_mount(),
        overwrite=overwrite,
        workers=Workers(workers, ray),
    )
    extractor = FeatureExtractor(weights, device, max_side_px)
    built = build_map(source, output, options, extractor, track, partial(typer.echo, err=True))
    Console().print(map_table(built, output))
