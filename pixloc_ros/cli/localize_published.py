"""`pixloc localize-published`: run PixLoc as published, on a COLMAP model, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pixloc_ros.cli.progress import track
from pixloc_ros.errors import ConfigError


def localize_published(
    colmap: Annotated[Path, typer.Option(help="COLMAP model of the references")],
    references: Annotated[
        Path, typer.Option(help="folder that the model's image names are relative to")
    ],
    images: Annotated[Path, typer.Option(help="folder of the queries")],
    queries: Annotated[Path, typer.Option(help="lines `name MODEL width height params...`")],
    output: Annotated[Path, typer.Option(help="file for poses, cam_from_world")],
    config: Annotated[Path | None, typer.Option(help="YAML, as in config/paper")] = None,
    pairs: Annotated[Path | None, typer.Option(help="lines `query reference`")] = None,
    descriptors: Annotated[
        list[Path] | None, typer.Option(help="HDF5, for the mean pose of references; repeatable")
    ] = None,
    inliers: Annotated[
        Path | None, typer.Option(help="instead of --pairs: hloc's log, whose poses are refined")
    ] = None,
    priors: Annotated[
        Path | None, typer.Option(help="with --inliers: poses to refine instead of the log's")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N")] = None,
) -> None:
    """Localize images as PixLoc's released code does, or refine the poses of hloc.

    Writes a pose for every query, as in published results: a failed one keeps its initial pose.
    An interrupted run continues when it is started again.

    Example: pixloc localize-published --colmap sfm --references db --images query --queries
    queries.txt --pairs pairs.txt --config config/paper/cambridge.yaml --output poses.txt
    """
    from pixloc_ros.alignment.published import PublishedLocalizer
    from pixloc_ros.common.atomic_write import check_writable
    from pixloc_ros.config.published import PublishedConfig, load_published
    from pixloc_ros.evaluation.datasets.protocol import Retrieval
    from pixloc_ros.evaluation.datasets.published_method import rank_references
    from pixloc_ros.evaluation.published import ByReferences, Refining, localize_files, read_image
    from pixloc_ros.geometry.trajectory import read_poses
    from pixloc_ros.maps.files import hloc
    from pixloc_ros.maps.files.colmap import read_model
    from pixloc_ros.maps.files.hloc_logs import read_logs
    from pixloc_ros.maps.reference_selection import ReferenceModel
    from pixloc_ros.maps.schema import file_sha256

    if (pairs is None) == (inliers is None):
        raise ConfigError("give either --pairs or --inliers")
    cameras = hloc.read_cameras(queries)
    options = load_published(config, device) if config else PublishedConfig()
    check_writable(output)
    known = ReferenceModel.of(read_model(colmap))
    published = PublishedLocalizer(options, known, partial(read_image, references))
    localizer: ByReferences | Refining
    if inliers is not None:
        localizer = Refining(published, read_logs(inliers), read_poses(priors) if priors else {})
    else:
        listed = Retrieval(pairs=pairs, descriptors=tuple(descriptors or ()))
        ranked = rank_references(listed, known, [*cameras], options)
        localizer = ByReferences(published, ranked)
    files: dict[str, Sequence[Path | None]] = {
        "queries": [queries],
        "pairs": [pairs],
        "descriptors": descriptors or [],
        "inliers": [inliers],
        "priors": [priors],
    }
    settings: dict[str, Any] = {
        name: [file_sha256(path) for path in paths if path is not None]
        for name, paths in files.items()
    }
    settings |= {
        "model": str(colmap),
        "config": options.model_dump(mode="json", exclude={"device"}),
    }
    results = localize_files(localizer, images, cameras, output, settings, track)
    aligned = sum(result.ok for result in results)
    console = Console()
    console.print(f"aligned {aligned} of {len(cameras)} images", highlight=False)
    console.print(f"poses: {output}", markup=False, soft_wrap=True)
