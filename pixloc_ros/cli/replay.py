"""`pixloc replay` and `pixloc localize`: compute poses for bags and for lists of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pixloc_ros import config as configuration
from pixloc_ros.cli.prior_files import PriorFiles, PriorFormat
from pixloc_ros.cli.progress import track
from pixloc_ros.common.foreign_files import parse_yaml
from pixloc_ros.config import Config
from pixloc_ros.errors import ConfigError
from pixloc_ros.sensors.topics import Topics

MapOption = Annotated[Path, typer.Option("--map", help="folder of the map")]
AnyMapOption = Annotated[str, typer.Option("--map", help="folder of the map, or its URL")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file with settings")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="name=value of a setting, repeatable; see `pixloc config`"),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N")]


def replay(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, or an .mcap or .db3 file")],
    map_folder: AnyMapOption,
    output: Annotated[Path, typer.Option(help="folder for poses, records, summary and report")],
    ground_truth: Annotated[
        Path | None,
        typer.Option(help="TUM file, map_from_base; default: BAG.truth.txt if it exists"),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="part=/topic, e.g. image=/cam0/image_raw")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="use every Nth image")] = 1,
    report: Annotated[bool, typer.Option(help="draw plots and overlays")] = True,
    view: Annotated[
        Path | None, typer.Option(help="file for the rerun viewer (needs rerun-sdk)")
    ] = None,
    record_session: Annotated[
        Path | None,
        typer.Option(help="new folder for accepted frames, for `pixloc map update --session`"),
    ] = None,
) -> None:
    """Localize along a rosbag2, without ROS, exactly as the live node would.

    Example: pixloc replay drive_bag --map campus_map --output run
    """
    # Imported here because torch and the plotting libraries take seconds.
    from pixloc_ros.evaluation.tables import summary_table
    from pixloc_ros.replay import runner

    result = runner.replay(
        bag,
        resolve_config(config, settings, map_folder, device),
        output,
        ground_truth,
        Topics().remapped(topic or []),
        every,
        report,
        view,
        progress=track,
        record_session=record_session,
    )
    console = Console()
    for note in result.notes:
        console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    console.print(summary_table(result.summary, f"{bag}"))
    console.print(f"results: {result.output}", markup=False, soft_wrap=True)


def localize(
    map_folder: AnyMapOption,
    images: Annotated[Path, typer.Option(help="folder of the images")],
    queries: Annotated[Path, typer.Option(help="lines `name MODEL width height params...`")],
    output: Annotated[
        Path, typer.Option(help="file for lines `name qw qx qy qz tx ty tz`, cam_from_world")
    ],
    priors: Annotated[Path | None, typer.Option(help="approximate poses of the images")] = None,
    prior_format: Annotated[
        PriorFormat,
        typer.Option(help="poses: like the output; ace: as ACE writes them; planar: x, y and yaw"),
    ] = "poses",
    pairs: Annotated[
        Path | None,
        typer.Option(help="instead of --priors: lines `query keyframe`, as hloc writes them"),
    ] = None,
    descriptors: Annotated[
        list[Path] | None,
        typer.Option(help="instead of --priors: HDF5 with hloc's global descriptors; repeatable"),
    ] = None,
    smaller_map: Annotated[
        list[Path] | None,
        typer.Option(
            help="map of the same place with smaller images, aligned with first; "
            "repeatable, smallest first"
        ),
    ] = None,
    inliers: Annotated[
        Path | None,
        typer.Option(
            help="hloc's log: align with the points that it matched, from its poses or "
            "from --priors"
        ),
    ] = None,
    matches: Annotated[
        Path | None,
        typer.Option(
            help="hloc's HDF5 of matches (LoFTR and others): PnP with the references of --pairs"
        ),
    ] = None,
    keypoints: Annotated[
        Path | None, typer.Option(help="with --matches: hloc's HDF5 of keypoints")
    ] = None,
    colmap: Annotated[
        Path | None,
        typer.Option(help="with --inliers or --matches: COLMAP model that has the points"),
    ] = None,
    prior_sigma: Annotated[
        str, typer.Option(help="METRES,DEGREES: sigmas of the priors, per axis")
    ] = "1.0,2.0",
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Localize images; without approximate poses they are searched for on the whole map.

    An interrupted run continues when it is started again.

    Example: pixloc localize --map campus_map --images query --queries queries.txt --output
    poses.txt
    """
    from pixloc_ros.common.atomic_write import check_writable
    from pixloc_ros.image_pyramid import PyramidLocalizer
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.schema import file_sha256
    from pixloc_ros.replay import queries as image_list

    files = PriorFiles(
        priors,
        prior_format,
        prior_sigma,
        pairs,
        descriptors or (),
        inliers,
        matches,
        keypoints,
        colmap,
    )
    files.check()
    if smaller_map and not files:
        raise ConfigError("--smaller-map needs --priors, --pairs, --descriptors or --inliers")
    if smaller_map and inliers:
        raise ConfigError("--inliers are points of one map: leave out --smaller-map")
    check_writable(output)
    listed = image_list.read_queries(queries, images)
    localizer = Localizer(resolve_config(config, settings, map_folder, device))
    global_prior = files.read(localizer, [query.name for query in listed])
    smaller = [
        Localizer(resolve_config(config, settings, folder, device)) for folder in smaller_map or ()
    ]
    pyramid = PyramidLocalizer((*smaller, localizer))
    without_effect = {"map", "device", "threads", "node"}
    results = image_list.localize_files(
        pyramid,
        images,
        listed,
        output,
        global_prior,
        track,
        settings={
            "queries": file_sha256(queries),
            "maps": [each.map.sha256 for each in pyramid.localizers],
            "weights": [each.features.sha256 for each in pyramid.localizers],
            "priors": files.digests(),
            "config": localizer.config.model_dump(mode="json", exclude=without_effect),
        },
    )
    found = sum(result.ok for result in results)
    console = Console()
    console.print(f"localized {found} of {len(results)} images", highlight=False)
    console.print(f"poses: {output}, records: {image_list.frames_path(output)}", soft_wrap=True)


def resolve_config(
    file: Path | None, settings: list[str] | None, map_folder: str | Path, device: str | None
) -> Config:
    """Return the settings of a file, overridden by --set, --map and --device.

    Raises ConfigError.
    """
    overrides = dict(parse_setting(setting) for setting in settings or [])
    overrides["map"] = str(map_folder)
    if device is not None:
        overrides["device"] = device
    return configuration.load(file, overrides) if file else configuration.from_flat(overrides)


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `name=value`; the value is parsed as YAML. Raises ConfigError."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--set {text}: expected name=value, e.g. alignment.robust_scale=0.2")
    try:
        return name.strip(), parse_yaml(value)
    except ValueError:
        raise ConfigError(f"--set {text}: '{value}' is not a value") from None
