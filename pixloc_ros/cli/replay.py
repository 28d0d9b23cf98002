"""`pixloc replay` and `pixloc localize`: compute poses for bags and for lists of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.prior_files import PriorFiles
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import AnyMapOption, SettingsOptions
from pixloc_ros.sensors.topics import Topics


@option_groups
def replay(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, or an .mcap or .db3 file")],
    map_folder: AnyMapOption,
    output: Annotated[Path, typer.Option(help="folder for poses, records, summary and report")],
    ground_truth: Annotated[
        Path | None,
        typer.Option(help="TUM file, map_from_base; default: BAG.truth.txt if it exists"),
    ] = None,
    *,
    settings: SettingsOptions,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="part=/topic, e.g. image=/cam0/image_raw, or camera_info=camera.yaml"),
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
        settings.resolve(map_folder),
        output,
        ground_truth=ground_truth,
        topics=Topics().remapped(topic or []),
        every=every,
        report=report,
        view=view,
        progress=track,
        record_session=record_session,
    )
    console = Console()
    for note in result.notes:
        console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    console.print(summary_table(result.summary, f"{bag}"))
    console.print(f"results: {result.output}", markup=False, soft_wrap=True)


@option_groups
def localize(
    map_folder: AnyMapOption,
    images: Annotated[Path, typer.Option(help="folder of the images")],
    queries: Annotated[Path, typer.Option(help="lines `name MODEL width height params...`")],
    output: Annotated[
        Path, typer.Option(help="file for lines `name qw qx qy qz tx ty tz`, cam_from_world")
    ],
    files: PriorFiles,
    settings: SettingsOptions,
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

    files.check()
    check_writable(output)
    listed = image_list.read_queries(queries, images)
    localizer = Localizer(settings.resolve(map_folder))
    global_prior = files.read(localizer, [query.name for query in listed])
    smaller = [Localizer(settings.resolve(folder)) for folder in files.smaller_map or ()]
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
