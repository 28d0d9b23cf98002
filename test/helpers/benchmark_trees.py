"""Public benchmarks in their official layouts, small, made from the generated street.

Images are real renderings and poses exact; every file says what the official one would say, in its
own convention. `Street` gives what all of them are made of.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.common import image_files
from pixloc_ros.geometry import se3
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

WIDTH, HEIGHT = 320, 192


@dataclass(frozen=True)
class Shot:
    """An image file with its true pose, and what it sees of the model's points."""

    name: str
    path: Path
    T_cam_world: np.ndarray
    pixels: np.ndarray  # (N, 2), COLMAP's
    point_ids: np.ndarray  # (N,)

    @property
    def qvec(self) -> np.ndarray:
        return se3.qvec_wxyz(self.T_cam_world)

    @property
    def centre(self) -> np.ndarray:
        return se3.inverse(self.T_cam_world)[:3, 3]


class Street:
    """References with points, and queries of a later drive; K in COLMAP's convention."""

    def __init__(self, folder: Path, queries: int = 3):
        mapping, drive = folder / "data" / "mapping", folder / "data" / "drive"
        self.model: ColmapModel = read_model(mapping / "colmap")
        camera = self.model.cameras[1]
        self.focal = float(camera.focal[0])
        self.cx, self.cy = (float(c) + 0.5 for c in camera.center)
        self.references = [
            Shot(i.name, mapping / "images" / i.name, i.T_cam_world, i.pixels + 0.5, i.point_ids)
            for i in self.model.images
        ]
        entries = json.loads((drive / "meta.json").read_text())["images"]
        step = len(entries) // queries
        self.queries = [self._query(drive, entry) for entry in entries[step // 2 :: step][:queries]]

    def _query(self, drive: Path, entry: dict) -> Shot:
        T = np.vstack([np.reshape(entry["T_world_cam"], (3, 4)), [0, 0, 0, 1]])
        nothing = np.zeros((0, 2)), np.zeros(0, np.int64)
        return Shot(entry["file"], drive / "images" / entry["file"], se3.inverse(T), *nothing)

    def nearest(self, query: Shot, count: int = 3) -> list[Shot]:
        """The references that a good retrieval would list."""
        return sorted(self.references, key=lambda shot: np.linalg.norm(shot.centre - query.centre))[
            :count
        ]


def words(*parts: object) -> str:
    """One line of a list, arrays spread."""
    return " ".join(str(value) for part in parts for value in (part if np.ndim(part) else [part]))


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def copy_image(shot: Shot, path: Path) -> None:
    """As it is, or as PNG where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == shot.path.suffix:
        shutil.copy(shot.path, path)
    else:
        image = image_files.read(shot.path)
        assert image is not None
        image_files.write(path, image)


def write_text_model(
    folder: Path,
    street: Street,
    images: Sequence[tuple[str, Shot]],
    cameras: Sequence[str],
    scale: float = 1.0,
    points: np.ndarray | None = None,
) -> None:
    """A COLMAP model as text; one camera line (`MODEL w h params`) per image, in their order.

    scale: of the images that the model was made from. points: ids to keep.
    """
    kept = street.model.point_ids if points is None else points
    write_lines(folder / "cameras.txt", [f"{i + 1} {line}" for i, line in enumerate(cameras)])
    lines, tracks = [], {int(point): [] for point in kept}
    for i, (name, shot) in enumerate(images, start=1):
        lines.append(words(i, shot.qvec, shot.T_cam_world[:3, 3], i, name))
        known = np.isin(shot.point_ids, kept)
        keypoints = zip(shot.pixels[known] * scale, shot.point_ids[known], strict=True)
        lines.append(" ".join(words(pixel, point) for pixel, point in keypoints))
        for slot, point in enumerate(shot.point_ids[known].tolist()):
            tracks[point] += [i, slot]
    write_lines(folder / "images.txt", lines)
    position = dict(zip(street.model.point_ids.tolist(), street.model.points_world, strict=True))
    write_lines(
        folder / "points3D.txt",
        [words(p, position[p], 0, 0, 0, 0.5, track) for p, track in tracks.items() if track],
    )


def as_binary(folder: Path) -> None:
    """Turn a text model into a binary one, with COLMAP itself."""
    import pycolmap

    pycolmap.Reconstruction(str(folder)).write_binary(str(folder))
    for path in folder.glob("*.txt"):
        path.unlink()


def write_pairs(path: Path, street: Street, query_name, reference_name) -> None:  # type: ignore[no-untyped-def]
    """A retrieval list; the functions give names of shots."""
    write_lines(
        path,
        [
            f"{query_name(query)} {reference_name(reference)}"
            for query in street.queries
            for reference in street.nearest(query)
        ],
    )


def cambridge(root: Path, street: Street) -> Path:
    """ShopFacade, with models of half the size and a focal length for each image.

    Those of references are wrong in the ground truth: it is only to be used for queries.
    """
    models = root / "CambridgeLandmarks_Colmap_Retriangulated_1024px" / "ShopFacade"
    names = {s.path: f"seq1/{s.path.stem}.png" for s in street.references}
    names |= {s.path: f"seq3/{s.path.stem}.png" for s in street.queries}
    for shot in (*street.references, *street.queries):
        copy_image(shot, root / "ShopFacade" / names[shot.path])

    def camera(factor: float) -> str:
        numbers = [street.focal * factor / 2, street.cx / 2, street.cy / 2, 0.0]
        return words("SIMPLE_RADIAL", WIDTH // 2, HEIGHT // 2, numbers)

    references = [(names[s.path], s) for s in street.references]
    queries = [(names[s.path], s) for s in street.queries]
    write_text_model(
        models / "model_train", street, references, [camera(1.0)] * len(references), 0.5
    )
    as_binary(models / "model_train")
    cameras = [camera(1.3)] * len(references) + [camera(1.0)] * len(queries)
    everything = [*references, *queries]
    write_text_model(models / "empty_all", street, everything, cameras, points=np.zeros(0))
    write_lines(models / "list_query.txt", [name for name, _ in queries])
    pairs = root.parent / "hloc" / "ShopFacade" / "pairs-query-netvlad10.txt"
    write_pairs(pairs, street, lambda s: names[s.path], lambda s: names[s.path])
    return root


def seven_scenes(root: Path, street: Street) -> Path:
    """heads: one model of training and test images, and points that only the latter see."""
    names = {s.path: f"seq-02/frame-{s.path.stem}.color.png" for s in street.references}
    names |= {s.path: f"seq-01/frame-{s.path.stem}.color.png" for s in street.queries}
    for shot in (*street.references, *street.queries):
        copy_image(shot, root / "heads" / names[shot.path])
    model = root / "7scenes_sfm_triangulated" / "heads" / "triangulated"
    camera = words("SIMPLE_PINHOLE", WIDTH, HEIGHT, street.focal, street.cx, street.cy)
    # Of each query the model has keypoints at points of its own, placed by the query's true pose.
    images = [(names[s.path], s) for s in (*street.references, *street.queries)]
    write_text_model(model, street, images, [camera] * len(images))
    extra = int(street.model.point_ids.max()) + 1
    _add_points_of_test_images(model, len(street.references), extra)
    write_lines(model / "list_test.txt", [names[s.path] for s in street.queries])
    as_binary_but(model, "list_test.txt")
    write_pairs(
        root / "7scenes_densevlad_retrieval_top_10" / "heads_top10.txt",
        street,
        lambda s: names[s.path],
        lambda s: names[s.path],
    )
    for part, shots in (("train", street.references), ("test", street.queries)):
        write_lines(
            root.parent / "pgt" / "sfm" / "7scenes" / f"heads_{part}.txt",
            [words(names[s.path], s.qvec, s.T_cam_world[:3, 3], street.focal) for s in shots],
        )
    return root


def _add_points_of_test_images(model: Path, references: int, first: int) -> None:
    """Twenty points, seen by the first two test images alone."""
    lines = (model / "images.txt").read_text().splitlines()
    points = (model / "points3D.txt").read_text().splitlines()
    one, two = references, references + 1
    for k in range(20):
        for image in (one, two):
            lines[2 * image + 1] = f"{lines[2 * image + 1]} {10 + k} 20 {first + k}".strip()
        points.append(words(first + k, [1.0, 2.0, 3.0], 0, 0, 0, 0.5, [one + 1, k, two + 1, k]))
    write_lines(model / "images.txt", lines)
    write_lines(model / "points3D.txt", points)


def as_binary_but(folder: Path, *kept: str) -> None:
    """As `as_binary`, keeping other text files."""
    texts = {name: (folder / name).read_text() for name in kept}
    as_binary(folder)
    for name, text in texts.items():
        (folder / name).write_text(text)


def aachen(root: Path, street: Street, version: str = "1.0") -> Path:
    """By day one query, by night the others; one more by night that no list has."""
    folder = root / "images_upright"
    for shot in street.references:
        copy_image(shot, folder / "db" / shot.path.name)
    day, *night = street.queries
    copy_image(day, folder / "query/day/milestone" / f"IMG_{day.path.name}")
    for shot in night:
        copy_image(shot, folder / "query/night/nexus5x" / f"IMG_{shot.path.name}")
    copy_image(day, folder / "query/night/nexus5x" / "IMG_unlisted.jpg")
    camera = words("SIMPLE_RADIAL", WIDTH, HEIGHT, street.focal, street.cx, street.cy, 0.0)
    lists = root / "queries"
    write_lines(
        lists / "day_time_queries_with_intrinsics.txt",
        [f"query/day/milestone/IMG_{day.path.name} {camera}"],
    )
    write_lines(
        lists / "night_time_queries_with_intrinsics.txt",
        [f"query/night/nexus5x/IMG_{shot.path.name} {camera}" for shot in night],
    )
    images = [(f"db/{s.path.name}", s) for s in street.references]
    if version == "1.1":
        model = root / "3D-models" / "aachen_v_1_1"
        write_text_model(model, street, images, [camera] * len(images))
        as_binary(model)
    else:
        write_nvm(root / "3D-models" / "aachen_cvpr2018_db.nvm", street, images)
        intrinsics = [f"{name} {camera}" for name, _ in images]
        write_lines(root / "3D-models" / "database_intrinsics.txt", intrinsics)
    return root


def write_nvm(path: Path, street: Street, images: Sequence[tuple[str, Shot]]) -> None:
    """Camera centres, intrinsics that are wrong, and keypoints relative to the image's centre."""
    lines = ["NVM_V3", "", str(len(images))]
    seen: dict[int, list[str]] = {int(point): [] for point in street.model.point_ids}
    for index, (name, shot) in enumerate(images):
        lines.append(words(name, 2 * street.focal, shot.qvec, shot.centre, 0.1, 0))
        relative = shot.pixels - [WIDTH / 2, HEIGHT / 2]
        for slot, point in enumerate(shot.point_ids.tolist()):
            if point >= 0:
                seen[point].append(words(index, slot, relative[slot]))
    lines += ["", str(len(seen))]
    for point, xyz in zip(street.model.point_ids.tolist(), street.model.points_world, strict=True):
        lines.append(words(xyz, 0, 0, 0, len(seen[point]), seen[point]))
    write_lines(path, lines)


def robotcar(root: Path, street: Street, places: bool = True) -> Path:
    """Night and sun, rear camera; names of models and lists are `.png`.

    places: as individual text models that share an image, or else one NVM file and a database.
    """
    for shot in street.references:
        copy_image(shot, root / "images/overcast-reference/rear" / shot.path.name)
    conditions = ["sun", "night", "night"]
    names = [
        f"{c}/rear/{1417178853389469 + i}.png"
        for i, c in enumerate(conditions[: len(street.queries)])
    ]
    for name, shot in zip(names, street.queries, strict=True):
        copy_image(shot, root / "images" / name.replace(".png", ".jpg"))
    write_lines(
        root / "intrinsics" / "rear_intrinsics.txt",
        [f"fx {street.focal}", f"fy {street.focal}", f"cx {street.cx}", f"cy {street.cy}"],
    )
    public, hidden = names[:2], names[2:]
    write_lines(
        root / "robotcar_v2_train.txt",
        [
            words(name, se3.inverse(shot.T_cam_world).ravel())
            for name, shot in zip(public, street.queries, strict=False)
        ]
        + [words("night/left/1.png", np.eye(4).ravel())],
    )
    write_lines(root / "robotcar_v2_test.txt", [*hidden, "night/left/1417178853389469.png"])
    camera = words("SIMPLE_RADIAL", WIDTH, HEIGHT, street.focal, street.cx, street.cy, 0.0)
    images = [(f"./overcast-reference/rear/{s.path.stem}.png", s) for s in street.references]
    if places:
        half = len(images) // 2
        for number, part in enumerate((images[: half + 1], images[half:]), start=1):
            folder = root / "3D-models/individual/colmap_reconstructions" / f"{number:03d}_aligned"
            write_text_model(folder, street, part, [camera] * len(part))
    else:
        write_nvm(root / "3D-models/all-merged/all.nvm", street, images)
        _write_database(root / "3D-models/overcast-reference.db", street, images)
    return root


def robotcar_rig(root: Path, street: Street, T_rear_left: np.ndarray) -> None:
    """A left camera at the place of the rear one, turned: its images are warped ones."""
    K = np.array(
        [[street.focal, 0, street.cx - 0.5], [0, street.focal, street.cy - 0.5], [0, 0, 1]]
    )
    homography = K @ T_rear_left[:3, :3].T @ np.linalg.inv(K)
    for path in (root / "images").glob("*/rear/*.jpg"):
        image = image_files.read(path)
        assert image is not None
        left = path.parent.parent / "left" / path.name
        left.parent.mkdir(exist_ok=True)
        size = (image.shape[1], image.shape[0])
        image_files.write(left, cv2.warpPerspective(image, homography, size), 95)
    T_car_rear = se3.make(Rotation.from_euler("xyz", [170, 5, 178], True).as_matrix(), [0, 0, -2])
    for camera, T in (("rear", T_car_rear), ("left", T_car_rear @ T_rear_left)):
        rows = [",".join(map(str, row)) for row in T]
        write_lines(root / "extrinsics" / f"{camera}_extrinsics.txt", rows)
    shutil.copy(root / "intrinsics/rear_intrinsics.txt", root / "intrinsics/left_intrinsics.txt")


def _write_database(path: Path, street: Street, images: Sequence[tuple[str, Shot]]) -> None:
    params = np.array([street.focal, street.cx, street.cy, 0.0]).tobytes()
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE cameras (camera_id INTEGER, model INTEGER, width INTEGER, "
            "height INTEGER, params BLOB)"
        )
        database.execute("CREATE TABLE images (image_id INTEGER, name TEXT, camera_id INTEGER)")
        database.execute("INSERT INTO cameras VALUES (7, 2, ?, ?, ?)", (WIDTH, HEIGHT, params))
        for i, (name, _) in enumerate(images):
            database.execute("INSERT INTO images VALUES (?, ?, 7)", (i, name.removeprefix("./")))
    database.close()


def cmu(root: Path, street: Street) -> Path:
    """slice7, whose poses are public, and slice2, whose are not; lists hold camera centres."""
    numbers = [street.focal, street.focal, street.cx, street.cy, 0.0, 0.0, 0.0, 0.0]
    wrong = [2 * street.focal, 2 * street.focal, street.cx, street.cy, 0.0, 0.0, 0.0, 0.0]
    write_lines(
        root / "intrinsics.txt",
        [
            "# camera model",
            words("c0 OPENCV", WIDTH, HEIGHT, numbers),
            "",
            words("c1 OPENCV", WIDTH, HEIGHT, wrong),
        ],
    )
    names = [f"img_{i:05d}_c0_{1287503834101037 + i}us.jpg" for i in range(len(street.queries))]
    camera = words("OPENCV", WIDTH, HEIGHT, numbers)
    for slice_ in ("slice2", "slice7"):
        folder = root / slice_
        images = []
        for i, shot in enumerate(street.references):
            name = f"img_{i:05d}_c0_1303398474779439us.jpg"
            copy_image(shot, folder / "database" / name)
            images.append((name, shot))
        for name, shot in zip(names, street.queries, strict=True):
            copy_image(shot, folder / "query" / name)
        write_text_model(folder / "sparse", street, images, [camera] * len(images))
        as_binary(folder / "sparse")
    write_lines(root / "slice2" / "test-images-slice2.txt", names)
    poses = root / "slice7" / "camera-poses"
    lines = [
        words(name, shot.qvec, shot.centre)
        for name, shot in zip(names, street.queries, strict=True)
    ]
    write_lines(poses / "slice-7-gt-query-images-20100901.txt", lines)
    (poses / "slice-7-gt-query-images-20100915.txt").write_text("")
    return root


def four_seasons(root: Path, street: Street) -> Path:
    """Relative poses to reference frames, for validation with the answer and for test0 without."""
    calibration = [
        words("Pinhole", [street.focal] * 2, street.cx, street.cy, 0),
        f"{WIDTH} {HEIGHT}",
    ]
    lines = []
    for shot in street.references:
        copy_image(shot, root / "reference/undistorted_images/cam0" / f"{stamp(shot)}.png")
        T = se3.inverse(shot.T_cam_world)
        lines.append(", ".join(words(stamp(shot), T[:3, 3], se3.quat_xyzw(T)).split()))
    write_lines(root / "reference" / "poses.txt", ["# ts, t, q", *lines])
    for recording in ("reference", "validation", "test0"):
        for i in (0, 1):
            write_lines(root / recording / f"Calibration/undistorted_calib_{i}.txt", calibration)
    stereo = [words(row) for row in se3.make(np.eye(3), [-0.3, 0, 0])]
    write_lines(root / "reference/Calibration/undistorted_calib_stereo.txt", stereo)
    relative = []
    for shot in street.queries:
        for recording in ("validation", "test0"):
            copy_image(shot, root / recording / "undistorted_images/cam0" / f"{stamp(shot)}9.png")
        near = street.nearest(shot, 2)[-1]
        T_query_ref = shot.T_cam_world @ se3.inverse(near.T_cam_world)
        relative.append(
            words(stamp(near), f"{stamp(shot)}9", T_query_ref[:3, 3], se3.quat_xyzw(T_query_ref))
        )
    name = "RelocalizationFilesVal/relocalizationFile_recording_2020-03-03_12-03-23.txt"
    write_lines(root / "reference" / name, ["# ref_ts q_ts", *relative])
    name = "RelocalizationFilesTest/relocalizationFile_recording_2020-03-24_17-45-31_{}.txt"
    blind = [" ".join(line.split()[:2]) for line in relative]
    write_lines(root / "reference" / name.format("easy"), blind[:2])
    write_lines(root / "reference" / name.format("hard"), blind[1:])
    return root


def stamp(shot: Shot) -> str:
    return f"15860000{shot.path.stem}"


def four_seasons_model(folder: Path, street: Street) -> Path:
    """A model of the left reference images, as hloc would make it."""
    camera = words("PINHOLE", WIDTH, HEIGHT, [street.focal] * 2, street.cx, street.cy)
    images = [(f"cam0/{stamp(s)}.png", s) for s in street.references]
    write_text_model(folder, street, images, [camera] * len(images))
    return folder
