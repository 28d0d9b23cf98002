"""A long drive in chunks: each is placed alone, by whichever process; memory is that of one chunk.

All chunks begin at the same smooth trajectory, so they share a frame. Keyframes at the ends of two
neighbouring chunks are in both: what both found there joins them (`joining`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.parallel import Workers
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag import adjustment
from pixloc_ros.maps.build.from_bag.loops import Meeting, find_meetings
from pixloc_ros.maps.build.from_bag.matching import Pairs
from pixloc_ros.maps.build.from_bag.trajectory import Loop
from pixloc_ros.maps.build.work_folder import Parts
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import PosedImage

PLACING, MATCHING = "Placing chunks of the drive", "Matching between chunks"
WITNESSES = 2  # images after each that a loop is of: with them its points are triangulated
ONE_NUMBER = np.array([1.0, 1.0j])  # of a pixel, to find it among others


def cut(drive_of: NDArray[np.int64], size: int, overlap: int) -> list[range]:
    """Images in ranges of at most `size`, of one drive each, which overlap.

    drive_of: (N,) ascending.
    """
    chunks = []
    for drive in np.unique(drive_of):
        first, end = np.searchsorted(drive_of, [drive, drive + 1]).tolist()
        own = max(end - first - overlap, 1)  # images of a chunk but for the last, shared ones
        number = -(-own // (size - overlap))
        starts = (first + np.linspace(0, own, number + 1)).round().astype(int).tolist()
        stops = [*(start + overlap for start in starts[1:-1]), end]
        chunks += [range(start, stop) for start, stop in zip(starts[:-1], stops, strict=True)]
    return chunks


@dataclass(frozen=True, slots=True, eq=False)
class PlacedChunk:
    """What became of the images of one chunk: poses, and points with who sees them."""

    images: range
    T_map_cam: Matrix  # (n, 4, 4)
    placed: NDArray[np.bool_]  # (n,)
    points: Matrix  # (P, 3) in the map
    image: NDArray[np.int64]  # (O,) by observation, among all images of the drive; ascending
    point: NDArray[np.int64]  # (O,) by observation, index into points
    pixels: Matrix  # (O, 2) by observation

    def shown(self, image: int, pixels: Matrix) -> NDArray[np.int64]:
        """(K,) the points that keypoints (K, 2) of an image show, -1 where they show none."""
        own = slice(*np.searchsorted(self.image, [image, image + 1]))
        known, point = self.pixels[own] @ ONE_NUMBER, self.point[own]
        order, wanted = np.argsort(known), pixels @ ONE_NUMBER
        if not len(known):
            return np.full(len(pixels), -1)
        at = order[np.searchsorted(known[order], wanted).clip(max=len(known) - 1)]
        return np.where(known[at] == wanted, point[at], -1)


@dataclass(frozen=True, slots=True, eq=False)
class _ChunkTask:
    """Some images of a drive, and all that is needed to work on them."""

    numbers: tuple[int, ...]  # of the images among all of the drive
    images: tuple[PosedImage, ...]
    pairs: Pairs
    T_map_cam: Matrix  # (n, 4, 4) to begin with
    config: MappingConfig
    mask: Path | None
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class _Contents:
    """Files of a task, for a machine that does not have them."""

    images: tuple[bytes, ...]
    mask: bytes | None


@dataclass(slots=True)
class Chunks:
    """The chunks of one build; what is done is kept in the work folder, chunk by chunk."""

    images: Sequence[PosedImage]
    chunks: Sequence[range]
    config: MappingConfig
    workers: Workers
    work: Path
    mask: Path | None = None
    progress: Progress = silent

    def place(self, T_map_cam: Matrix, pairs: Pairs) -> list[PlacedChunk]:
        """Match, triangulate and adjust each chunk from poses (N, 4, 4), held near them."""
        tasks = [self._task("placed", chunk, pairs, T_map_cam) for chunk in self.chunks]
        found = self._done(_place, [(task,) for task in tasks], PLACING)
        return [
            PlacedChunk(
                images=chunk,
                T_map_cam=arrays["T_map_cam"],
                placed=arrays["placed"].astype(bool),
                points=arrays["points"],
                image=arrays["image"] + chunk.start,
                point=arrays["point"],
                pixels=arrays["pixels"],
            )
            for chunk, arrays in zip(self.chunks, found, strict=True)
        ]

    def find_meetings(
        self, T_map_cam: Matrix, pairs: Pairs, T_base_cam: Matrix, moment_of: Sequence[int]
    ) -> list[Meeting]:
        """As `loops.find_meetings`, of pairs in any two chunks; memory is that of two chunks."""
        calls = []
        for own in self._by_chunks(pairs):
            images = self._with_witnesses(own)
            near = [*pairwise(images), *zip(images, images[WITNESSES:], strict=False)]
            task = self._task("meetings", images, sorted({*own, *near}), T_map_cam)
            wanted = [(images.index(i), images.index(j)) for i, j in own]
            calls.append((task, wanted, T_base_cam[images], [moment_of[i] for i in images]))
        found = self._done(_find_meetings, calls, MATCHING)
        return [
            meeting
            for (task, *_), arrays in zip(calls, found, strict=True)
            for meeting in _unpacked(arrays, np.array(task.numbers))
        ]

    def _done(
        self, function: Callable[..., Arrays], calls: Sequence[tuple[Any, ...]], words: str
    ) -> list[Arrays]:
        """Results of a function for tasks and what belongs to them, unless they are there."""
        parts = Parts(self.work)
        missing = [call for call in calls if call[0].folder.name not in parts]
        results = self.workers.map(function, ((self._contents(c[0]), *c) for c in missing))
        for task, *_ in self.progress(missing, words, len(missing)):
            parts.put(task.folder.name, next(results))
            shutil.rmtree(task.folder, ignore_errors=True)
        return [parts.get(call[0].folder.name) for call in calls]

    def _contents(self, task: _ChunkTask) -> _Contents | None:
        if not self.workers.ray_address:
            return None
        mask = task.mask.read_bytes() if task.mask is not None else None
        return _Contents(tuple(image.path.read_bytes() for image in task.images), mask)

    def _task(
        self, kind: str, images: Sequence[int], pairs: Pairs, T_map_cam: Matrix
    ) -> _ChunkTask:
        number = {image: i for i, image in enumerate(images)}
        local = [(number[i], number[j]) for i, j in pairs if i in number and j in number]
        T = T_map_cam[list(images)]
        digest = hashlib.sha256(repr((list(images), local, self.config)).encode() + T.tobytes())
        return _ChunkTask(
            numbers=tuple(images),
            images=tuple(self.images[i] for i in images),
            pairs=local,
            T_map_cam=T,
            config=self.config,
            mask=self.mask,
            folder=self.work / f"{kind}-{digest.hexdigest()[:16]}",
        )

    def _by_chunks(self, pairs: Pairs) -> list[Pairs]:
        """Pairs whose first images are in one chunk, and the second ones in one."""
        last = np.array([chunk.stop for chunk in self.chunks])
        groups: dict[tuple[int, int], Pairs] = defaultdict(list)
        for i, j in sorted(pairs):
            first, second = np.searchsorted(last, [i, j], "right").tolist()
            groups[first, second].append((i, j))
        return list(groups.values())

    def _with_witnesses(self, pairs: Pairs) -> list[int]:
        """The images of pairs and those that follow them, ascending."""
        own = {image for pair in pairs for image in pair}
        more = {image + k for image in own for k in range(1 + WITNESSES)}
        return sorted(image for image in more if image < len(self.images))


def _place(contents: _Contents | None, task: _ChunkTask) -> Arrays:
    with _run(contents, task) as run:
        T = task.T_map_cam
        found = adjustment.adjust(run, T, T[:, :3, 3], task.config, silent)
    arrays = _observations(found.model)
    arrays |= {"T_map_cam": found.T_map_cam, "placed": found.placed.astype(np.uint8)}
    return arrays


def _find_meetings(
    contents: _Contents | None,
    task: _ChunkTask,
    wanted: Pairs,
    T_base_cam: Matrix,
    moment_of: Sequence[int],
) -> Arrays:
    with _run(contents, task) as run:
        reconstruction = run.reconstruct(task.T_map_cam)
        found = find_meetings(run, reconstruction, T_base_cam, moment_of, wanted)
    moments = np.array([(m.loop.first, m.loop.second) for m in found], np.int64)
    return {
        "moments": moments.reshape(-1, 2),
        "T": np.array([m.loop.T_first_second for m in found], np.float64).reshape(-1, 4, 4),
        "matches": np.array([len(m.keypoints) for m in found], np.int64),
        "keypoints": np.concatenate([np.zeros((0, 2, 3)), *(m.keypoints for m in found)]),
    }


def _unpacked(arrays: Arrays, numbers: NDArray[np.int64]) -> Iterator[Meeting]:
    """Meetings with the numbers that images have in the drive."""
    ends = np.cumsum(arrays["matches"]).tolist()
    for (first, second), T, begin, end in zip(
        arrays["moments"], arrays["T"], [0, *ends], ends, strict=False
    ):
        keypoints = arrays["keypoints"][begin:end].copy()
        keypoints[..., 0] = numbers[keypoints[..., 0].astype(np.int64)]
        yield Meeting(Loop(int(first), int(second), T), keypoints)


@contextmanager
def _run(contents: _Contents | None, task: _ChunkTask) -> Iterator[ColmapRun]:
    """Keypoints and matches of a task, in its folder, or in one of this machine's own."""
    if contents is None:
        yield _matched(task)
        return
    with TemporaryDirectory(prefix="pixloc-chunk-") as name:
        yield _matched(_written(contents, task, Path(name)))


def _matched(task: _ChunkTask) -> ColmapRun:
    run = ColmapRun(task.folder, task.images, silent, task.mask)
    run.extract()
    run.match(task.pairs)
    return run


def _written(contents: _Contents, task: _ChunkTask, folder: Path) -> _ChunkTask:
    """The task with all its files in a folder."""
    images = []
    for i, (image, content) in enumerate(zip(task.images, contents.images, strict=True)):
        path = folder / f"{i:08d}{image.path.suffix}"
        path.write_bytes(content)
        images.append(replace(image, path=path))
    mask = None
    if task.mask is not None and contents.mask is not None:
        mask = folder / f"mask{task.mask.suffix}"
        mask.write_bytes(contents.mask)
    return replace(task, images=tuple(images), mask=mask, folder=folder / "run")


def _observations(model: ColmapModel) -> Arrays:
    """Points, and by observation image, point (an index) and pixel."""
    images = sorted(model.images, key=lambda image: image.name)
    seen = [np.flatnonzero(image.point_ids >= 0) for image in images]
    numbers = [int(Path(image.name).stem) for image in images]
    ids = np.concatenate([i.point_ids[s] for i, s in zip(images, seen, strict=True)])
    return {
        "points": model.points_world,
        "image": np.repeat(np.array(numbers, np.int64), [len(s) for s in seen]),
        "point": np.searchsorted(model.point_ids, ids),
        "pixels": np.concatenate([i.pixels[s] for i, s in zip(images, seen, strict=True)]),
    }
