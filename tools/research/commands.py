"""`python -m research`: measure and draw what the features can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import MapOption, SetOption, SettingsOptions
from pixloc_ros.common import image_files
from pixloc_ros.config import FeaturesConfig
from pixloc_ros.errors import DataError

app = typer.Typer(help="Measure and draw what the network's features can do.", no_args_is_help=True)

WeightsOption = Annotated[str, typer.Option(help="packaged weights or a file")]
OutputOption = Annotated[Path, typer.Option(help="picture to write, .jpg or .png")]
ImagesOption = Annotated[Path, typer.Option(help="folder of query images")]
MetaOption = Annotated[Path, typer.Option(help="meta.json with their true poses")]
AxesOption = Annotated[str, typer.Option(help="keep or optical_to_ros, as for the map")]
EveryOption = Annotated[int, typer.Option(min=1, help="use every Nth image")]
PACKAGED = FeaturesConfig().weights
BASIN_SIZES: dict[str, list[float]] = {
    "forward": [-8, -6, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 6, 8],
    "lateral": [-4, -3, -2, -1.5, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 1.5, 2, 3, 4],
    "yaw": [-20, -15, -10, -8, -6, -4, -2, -1, 0, 1, 2, 4, 6, 8, 10, 15, 20],
}


@app.command()
def match(
    pairs: Annotated[Path, typer.Argument(help="folder of PAIR/01.jpg, 02.jpg, corrs.txt")],
    weights: WeightsOption = PACKAGED,
    method: Annotated[
        Literal["features", "disk"], typer.Option(help="disk: dense DISK, to compare")
    ] = "features",
    window: Annotated[int, typer.Option(min=1, help="pixels searched to each side")] = 20,
    tolerance: Annotated[float, typer.Option(min=0, help="pixels from the true position")] = 8.0,
) -> None:
    """Print the share of hand-marked points that the features find in another photo (WxBS).

    Example: python -m research match wxbs --window 20 --tolerance 8
    """
    from pixloc_ros.features.pyramid import FeatureExtractor
    from research import marked_pairs
    from research.baselines.dense import DenseDisk

    search = marked_pairs.MatchScore(window, tolerance)
    features = DenseDisk() if method == "disk" else FeatureExtractor(weights)
    folders, found = marked_pairs.read_pairs(pairs), {}
    for folder in track(folders, "pairs", len(folders)):
        found[folder.name] = marked_pairs.found(features, marked_pairs.read_pair(folder), search)
    levels = list(next(iter(found.values())))
    table = Table("pair", "points", *levels, title=f"Points found again ({method})")
    for name, hits in found.items():
        table.add_row(name, str(len(hits[levels[0]])), *(f"{hits[k].mean():.2f}" for k in levels))
    pooled = {level: np.concatenate([hits[level] for hits in found.values()]) for level in levels}
    count = str(len(pooled[levels[0]]))
    table.add_row("all points", count, *(f"{pooled[k].mean():.3f}" for k in levels))
    table.add_row("by chance", "", *([f"{search.chance:.3f}"] * len(levels)))
    Console().print(table)


@app.command()
def confidence(
    weights: WeightsOption = PACKAGED,
    count: Annotated[int, typer.Option(min=1, help="views of the generated street")] = 20,
    image: Annotated[Path | None, typer.Option(help="draw only this image's confidence")] = None,
    output: Annotated[Path | None, typer.Option(help="picture to write, .jpg or .png")] = None,
) -> None:
    """Measure the confidence of sky, road, cars and houses on the street, or draw an image's.

    Example: python -m research confidence --image drive/000100.jpg --output confidence.jpg
    """
    from pixloc_ros.features.pyramid import FeatureExtractor
    from research import street_confidence
    from research.confidence_picture import draw_confidence

    features = FeatureExtractor(weights)
    if output is not None:
        views = street_confidence.labelled_views(1)
        shown = next(views)[0] if image is None else _read(image)
        image_files.write(output, draw_confidence(shown, features.extract(shown)))
    if image is None:
        Console().print(_confidence_table(street_confidence.confidence_by_class(features, count)))


def _confidence_table(rows: Any) -> Table:
    table = Table("class", "share of pixels", "stride 16", "stride 4", "stride 2")
    for row in rows:
        table.add_row(row.name, f"{row.share:.2f}", *(f"{c:.2f}" for c in row.confidence))
    return table


@app.command()
def degrade(
    image: Annotated[Path, typer.Argument(help="any image")],
    output: OutputOption,
    seed: Annotated[int, typer.Option(help="seed of the random degradations")] = 0,
) -> None:
    """Draw all degradations of `pixloc shots` and `pixloc bag create` on a contact sheet.

    Example: python -m research degrade drive/000100.jpg --output degradations.jpg
    """
    from pixloc_ros.evaluation.degradation import DEGRADATIONS
    from pixloc_ros.evaluation.degradation import degrade as degraded
    from pixloc_ros.evaluation.shots import CLEAN
    from research.contact_sheet import contact_sheet

    clean = _read(image)
    pictures = {CLEAN: clean} | {name: degraded(name, clean, seed) for name in DEGRADATIONS}
    image_files.write(output, contact_sheet(pictures, columns=4, width_px=400))


@app.command()
def basin(
    map_folder: MapOption,
    images: ImagesOption,
    meta: MetaOption,
    output: Annotated[Path, typer.Option(help="PNG to write")],
    every: EveryOption = 1,
    exclude_every: Annotated[int, typer.Option(help="leave out every Nth image, the map's")] = 0,
    axes: AxesOption = "keep",
    settings: SetOption = None,
) -> None:
    """Plot the share of frames that converge, per level, over the offset of the initial pose.

    Example: python -m research basin --map town --images drive/images --meta drive/meta.json
    --every 20 --output basin.png
    """
    from pixloc_ros.evaluation.shots import posed_frames
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.files.posed_images import read_posed_images
    from research.basin_plot import write_basin
    from research.descent import Descent
    from research.descent import basin as basin_of

    localizer = Localizer(SettingsOptions(given=settings).resolve(map_folder))
    drive = read_posed_images(meta, images, axes)
    index = [i for i in range(len(drive.files)) if not exclude_every or i % exclude_every][::every]
    frames = track(posed_frames(drive, index), "frames", len(index))
    shares = basin_of((Descent.of(localizer, *frame) for frame in frames), BASIN_SIZES)
    write_basin(output, shares, BASIN_SIZES)
    for table in _basin_tables(shares):
        Console().print(table)


def _basin_tables(shares: Any) -> Iterator[Table]:
    for axis, curves in shares.items():
        table = Table(axis, *curves)
        for i, size in enumerate(BASIN_SIZES[axis]):
            table.add_row(f"{size:g}", *(f"{share[i]:.2f}" for share in curves.values()))
        yield table


@app.command()
def travel(
    map_folder: MapOption,
    images: ImagesOption,
    meta: MetaOption,
    output: OutputOption,
    frame: Annotated[int, typer.Option(min=0, help="number of the image")] = 0,
    offset: Annotated[
        str, typer.Option(help="FORWARD,LATERAL,YAW of the initial pose: m, m, deg")
    ] = ("-2,0.5,3"),
    axes: AxesOption = "keep",
    settings: SetOption = None,
) -> None:
    """Draw how points move from a wrong initial pose to the result, level by level.

    Example: python -m research travel --map town --images drive/images --meta drive/meta.json
    --frame 40 --output travel.jpg
    """
    from pixloc_ros.evaluation.shots import posed_frames
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.files.posed_images import read_posed_images
    from research.descent import Descent, offsets
    from research.travel import draw_travel

    form = "FORWARD,LATERAL,YAW in metres and degrees"
    forward, lateral, yaw = parse_numbers("--offset", offset, form, "-2,0.5,3")
    localizer = Localizer(SettingsOptions(given=settings).resolve(map_folder))
    (posed,) = posed_frames(read_posed_images(meta, images, axes), [frame])
    descent = Descent.of(localizer, *posed)
    moved = offsets("forward", [forward]) @ offsets("lateral", [lateral]) @ offsets("yaw", [yaw])
    way = descent.way(descent.initial_poses(moved))
    strides = [level.stride for level in descent.observation.pyramid.levels]
    errors = " > ".join(f"{descent.error_px(pose)[0]:.1f}" for pose in way)
    stations = [descent.pixels(pose)[0].numpy() for pose in way]
    image_files.write(
        output, draw_travel(posed[0].image_rgb, stations, strides, f"mean error {errors} px")
    )


@app.command()
def variant(
    name: Annotated[
        Literal["random", "no_confidence", "fixed_damping"],
        typer.Argument(help="what to remove"),
    ],
    output: Annotated[Path, typer.Option(help="weights file to write, .safetensors")],
    weights: WeightsOption = PACKAGED,
    images: Annotated[
        Path | None, typer.Option(help="some images, for the batch norms of random weights")
    ] = None,
) -> None:
    """Write weights for an ablation, for `map build --weights FILE`.

    Example: python -m research variant no_confidence --output no_confidence.safetensors
    """
    from research import variants

    if name == "random" and images is None:
        raise DataError("random weights need --images, a folder of some, for their batch norms")
    files = sorted(images.iterdir())[:8] if images is not None else []
    network = variants.VARIANTS[name](weights, map(_read, files))
    variants.write(network, output)


def _read(path: Path) -> NDArray[np.uint8]:
    image = image_files.read(path)
    if image is None:
        raise DataError(f"{path} cannot be read as an image")
    return image
