"""`research free-photos`: cut the photos that `open` was trained on out of public repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from pixloc_ros.cli.progress import track
from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError

Image = NDArray[np.uint8]

TILE = (396, 528)  # rows and columns: a source of kind `photos` keeps this many
PHOTO_WIDTHS = (528, 1200)  # a photo is cut into tiles at these widths: the whole, and details
DIRECTIONS = 6  # level views into a panorama
VIEW_DEG = 90.0  # their width
VIDEO_STEP = 37  # frames
MIN_CONTRAST = 9.0  # standard deviation of grey levels within windows; sky has less
WINDOW_PX = 31


@dataclass(frozen=True, slots=True)
class PhotoRepository:
    """Files of a public repository whose licence allows any use of them."""

    name: str  # owner/name on GitHub
    commit: str
    licence: str
    files: tuple[str, ...]
    held_out: tuple[str, ...] = ()  # only for validation


_HDRI = (
    "apartment bridge dawn esplanade forest hall lab lobby night park studio sunrise sunset venice "
    "warehouse workshop"
)
_POLY_HAVEN = (
    "aerodynamics_workshop autoshop_01 blocky_photo_studio brown_photostudio_01 "
    "brown_photostudio_02 brown_photostudio_06 brown_photostudio_07 christmas_photo_studio_07 "
    "circus_arena drachenfels_cellar hilly_terrain_01 kloppenheim_05 noon_grass "
    "peppermint_powerplant phalzer_forest_01 rainforest_trail sepulchral_chapel_rotunda "
    "st_peters_square_night vestibule"
)
_POLY_HAVEN_HELD_OUT = (
    "chinese_garden leadenhall_market modern_buildings_2 narrow_moonlit_road thatch_chapel"
)
_LANES = "solidWhiteRight solidYellowCurve solidYellowLeft whiteCarLaneSwitch"
_ADVANCED = "straight_lines1 straight_lines2 test1 test2 test3 test4 test6"
_POP = (
    "galen-crout-175291 jad-limcaco-183877 jared-evans-119758 kait-herzog-8242 "
    "samuel-zeller-337041 spacex-81773 tony-webster-97532"
)
_ELEMENTARY = ("Ashim DSilva", "Sunset by the Pier")
_BUDGIE = (
    "beacon-street-sunset casa-mila lake-sherburne piazza-gae-aulenti "
    "singaporean-cityscape tea-gardens the-spices-of-life"
)
_GALLIUM = "2.1-architectural 2.1-turbines 3.0-architectural"
_OPENEXR = (
    "LuminanceChroma/Garden LuminanceChroma/MtTamNorth ScanLines/Cannon ScanLines/Desk "
    "ScanLines/MtTamWest ScanLines/StillLife Tiles/GoldenGate"
)
_WONDERS = "chichen-itza christ-redeemer machu-picchu taj-mahal"
REPOSITORIES = (
    PhotoRepository(
        "pmndrs/assets",
        "d8709a9b11247dc51b72bb32fade56048807d868",
        "CC0 1.0 (panoramas of Poly Haven)",
        tuple(f"src/hdri/{name}.hdr" for name in _HDRI.split()),
        ("src/hdri/city.hdr",),
    ),
    PhotoRepository(
        "gkjohnson/3d-demo-data",
        "a79b5400ba8ed5bdeffebc10ce5adeecda7c3ebc",
        "CC0 1.0 (panoramas of Poly Haven, by README.md)",
        tuple(f"hdri/{name}_1k.hdr" for name in _POLY_HAVEN.split()),
        tuple(f"hdri/{name}_1k.hdr" for name in _POLY_HAVEN_HELD_OUT.split()),
    ),
    PhotoRepository(
        "pmndrs/drei-assets",
        "456060a26bbeb8fdf79326f224b6d99b8bcce736",
        "CC0 1.0 (panoramas of HDRI Haven, by README.md)",
        ("hdri/immenstadter_horn_1k.hdr", "hdri/venice_sunset_1k.hdr"),
    ),
    PhotoRepository(
        "bevyengine/bevy",
        "4805ca792c3e94eef07afd6fa9a2712f388c9a67",
        "CC0 1.0 (panorama of HDRI Haven, by CREDITS.md)",
        ("assets/textures/spiaggia_di_mondello_1k.hdr",),
    ),
    PhotoRepository(
        "raysan5/raylib",
        "abe23bf82dcab18a618067843aed4eec2b24ba97",
        "CC0 1.0 (panorama of HDRI Haven, by examples/models/resources/LICENSE.md)",
        (),
        ("examples/models/resources/dresden_square_1k.hdr",),
    ),
    PhotoRepository(
        "SceneView/sceneview-android",
        "c92fdc68ac2ababbe11194f754f814516779d887",
        "Apache-2.0",
        tuple(f"website-static/environments/sky/{name}_2k.jpg" for name in ("docklands", "garden")),
    ),
    PhotoRepository(
        "googlevr/vrview",
        "610e20c825f65f9a266da399b154d18e7c31de3f",
        "Apache-2.0",
        tuple(f"examples/gallery/{name}.jpg" for name in _WONDERS.split()),
        ("examples/gallery/petra.jpg",),
    ),
    PhotoRepository(
        "AcademySoftwareFoundation/openexr-images",
        "e38ffb0790f62f05a6f083a6fa4cac150b3b7452",
        "BSD-3-Clause, (c) Industrial Light & Magic",
        tuple(f"{name}.jpg" for name in _OPENEXR.split()),
        ("LuminanceChroma/CrissyField.jpg", "ScanLines/Tree.jpg"),
    ),
    PhotoRepository(
        "BuddiesOfBudgie/budgie-backgrounds",
        "82067426f1dde366e9c9038fdbe457c2527525dd",
        "CC0 1.0",
        tuple(f"backgrounds/{name}.jpg" for name in _BUDGIE.split()),
        ("backgrounds/roman-colosseum.jpg",),
    ),
    PhotoRepository(
        "GalliumOS/galliumos-artwork",
        "9779ac988e8ad5bd442dc389024ba310f9534fb6",
        "CC0 1.0 (by usr/share/xfce4/backdrops/README-galliumos.md)",
        tuple(f"usr/share/xfce4/backdrops/galliumos-{name}.jpg" for name in _GALLIUM.split()),
    ),
    PhotoRepository(
        "elementary/wallpapers",
        "f28b86144ba01d788ac61ad198ca16fa9477913f",
        "CC0 1.0 (Unsplash before 2017-06-08, by debian/copyright of the branch deb-packaging)",
        tuple(f"backgrounds/{name}.jpg" for name in _ELEMENTARY),
    ),
    PhotoRepository(
        "pop-os/wallpapers",
        "03a25a14a76eaf3825b980ab50aad6698c1c5a35",
        "public domain (Unsplash, by README.md)",
        tuple(f"original/{name}.jpg" for name in _POP.split()),
        ("original/sean-afnan-244576.jpg",),
    ),
    PhotoRepository(
        "udacity/CarND-LaneLines-P1",
        "ce5681be7ef8140560c0e464ef2da611e40b4fc9",
        "MIT",
        (
            *(f"test_images/{name}.jpg" for name in _LANES.split()),
            "test_videos/solidWhiteRight.mp4",
        ),
    ),
    PhotoRepository(
        "udacity/CarND-Advanced-Lane-Lines",
        "91b080357290da37f533e2d0832f601c3e770d51",
        "MIT",
        tuple(f"test_images/{name}.jpg" for name in _ADVANCED.split()),
    ),
    PhotoRepository(
        "commaai/comma2k19",
        "4c7f1a6e1957745beadc1def0e7225f559b09a2a",
        "MIT",
        ("Example_1/b0c9d2329ad1606b|2018-08-02--08-34-47/40/preview.png",),
    ),
)


def free_photos(
    repositories: Annotated[
        Path, typer.Option(help="folder of clones, OWNER/NAME, with or without a work tree")
    ],
    output: Annotated[Path, typer.Option(help="folder to write: train and held_out")],
) -> None:
    """Write tiles of freely licensed photos, 528 px wide, for a source of kind `photos`.

    Example: python -m research free-photos --repositories clones --output photos
    """
    if output.exists():
        raise DataError(f"{output} exists already: remove it or choose another folder")
    for repository in track(REPOSITORIES, "repositories", len(REPOSITORIES)):
        for part, files in (("train", repository.files), ("held_out", repository.held_out)):
            for file in files:
                content = _read(repositories / repository.name, f"{repository.commit}:{file}")
                stem = f"{repository.name.partition('/')[0]}_{Path(file).stem}"
                for number, tile in enumerate(_tiles(content, Path(file).suffix, output)):
                    path = output / part / f"{stem}_{number:02d}.jpg"
                    image_files.write(path, tile, image_files.IMAGE_QUALITY)


def _read(clone: Path, revision: str) -> bytes:
    """Return a file of a commit."""
    command = ["git", "-C", str(clone), "cat-file", "blob", revision]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        raise DataError(f"{clone}: no {revision} ({result.stderr.decode().strip()})")
    return result.stdout


def _tiles(content: bytes, suffix: str, work: Path) -> Iterator[Image]:
    if suffix == ".mp4":
        return (tile for frame in _frames(content, work) for tile in _cut(frame, PHOTO_WIDTHS[:1]))
    if suffix == ".hdr":
        return _views(_developed(content))
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    bgr = np.asarray(decoded, np.uint8)
    return _views(bgr) if bgr.shape[1] == 2 * bgr.shape[0] else _cut(bgr, PHOTO_WIDTHS)


def _views(panorama: Image) -> Iterator[Image]:
    """Return what level pinhole cameras at the panorama's centre see, all around."""
    height, width = panorama.shape[:2]
    focal_px = TILE[1] / 2 / np.tan(np.radians(VIEW_DEG / 2))
    x, y = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / focal_px for n in TILE[::-1]))
    rows = (0.5 + np.arctan2(y, np.hypot(x, 1.0)) / np.pi) * height - 0.5
    for direction in range(DIRECTIONS):
        turns = np.arctan2(x, 1.0) / (2 * np.pi) + direction / DIRECTIONS
        columns = turns % 1.0 * width - 0.5
        view = cv2.remap(
            panorama,
            columns.astype(np.float32),
            rows.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        if _contrast(np.asarray(view, np.uint8)) >= MIN_CONTRAST:
            yield np.ascontiguousarray(view[..., ::-1])


def _developed(content: bytes) -> Image:
    """Return a panorama of linear light as a camera exposes it."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
    light = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flags), np.float32)
    levels = 230 * (light / np.percentile(light, 90)) ** (1 / 2.2)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _frames(content: bytes, work: Path) -> Iterator[Image]:
    file = work / "video.mp4"
    file.write_bytes(content)
    video = cv2.VideoCapture(str(file))
    for number in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT))):
        read, frame = video.read()
        if read and number % VIDEO_STEP == VIDEO_STEP // 2:
            yield np.asarray(frame, np.uint8)
    video.release()
    file.unlink()


def _cut(bgr: Image, widths: tuple[int, ...]) -> Iterator[Image]:
    """Scale an image to each width that it has, and cut it into tiles with enough contrast."""
    height, width = bgr.shape[:2]
    for wanted in widths:
        factor = max(min(1.0, wanted / width), TILE[0] / height, TILE[1] / width)
        size = (max(round(width * factor), TILE[1]), max(round(height * factor), TILE[0]))
        scaled = np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), np.uint8)
        for y in _corners(size[1], TILE[0]):
            for x in _corners(size[0], TILE[1]):
                tile = scaled[y : y + TILE[0], x : x + TILE[1]]
                if _contrast(tile) >= MIN_CONTRAST:
                    yield np.ascontiguousarray(tile[..., ::-1])


def _corners(side: int, tile: int) -> list[int]:
    count = round((side - tile) / tile) + 1
    return np.linspace(0, side - tile, count).astype(int).tolist()


def _contrast(bgr: Image) -> float:
    """Return the mean standard deviation of grey levels around a pixel."""
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    window = (WINDOW_PX, WINDOW_PX)
    variance = cv2.blur(grey**2, window) - cv2.blur(grey, window) ** 2
    return float(np.sqrt(np.maximum(variance, 0)).mean())
