"""Keep the frames of a run on disk while it goes on, so that stopping it does not lose them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pixloc_ros.common.atomic_write import locked_folder, remove, write_errors, write_text
from pixloc_ros.common.foreign_files import read_json
from pixloc_ros.errors import DataError, PixlocError, one_line
from pixloc_ros.evaluation.frames import (
    FRAMES_FILE,
    FrameResult,
    read_frames,
    trajectory_of,
    write_frames,
)
from pixloc_ros.evaluation.metrics import evaluate
from pixloc_ros.evaluation.report import SUMMARY_FILE, TRAJECTORY_FILE, write_summary
from pixloc_ros.geometry.trajectory import TUM_HEADER, tum_line, write_tum

PARTIAL_FOLDER = "partial"
SETTINGS_FILE = "run.json"


class PartialRun:
    """Writes each frame of a run to OUTPUT/partial at once; OUTPUT itself has whole runs only.

    A context manager. If its block ends as it should, the folder is removed; otherwise it stays,
    with a summary that says how far the run got. After a kill it has no summary. The next run
    with the same output replaces it, from its first frame on.

    total: the number of frames that are expected. provenance: as for `evaluate`.
    keep_older: rename the folder of an earlier run to partial-1, partial-2 ... instead: what was
    recorded live cannot be computed again.

    Raises DataError if a file cannot be written, or another process writes there.
    """

    def __init__(
        self,
        output: Path,
        total: int | None = None,
        provenance: Mapping[str, Any] | None = None,
        keep_older: bool = False,
    ) -> None:
        self.folder = output / PARTIAL_FOLDER
        self.count = 0
        self._total = total
        self._provenance = provenance or {}
        self._keep_older = keep_older
        self._lock, self._files = ExitStack(), ExitStack()
        self._frames: TextIO
        self._trajectory: TextIO
        self._in_order = True
        self._last_ns: int | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, frame: FrameResult) -> None:
        """Append a frame to frames.jsonl and, if it was localized, to trajectory.txt."""
        with write_errors(self.folder):
            if self.count == 0:
                self._create()
            self._frames.write(frame.model_dump_json() + "\n")
            self._frames.flush()
            if frame.pose is not None:
                self._trajectory.write(tum_line(frame.stamp_ns, frame.pose.matrix()))
                self._trajectory.flush()
        self.count += 1
        self._in_order &= self._last_ns is None or frame.stamp_ns > self._last_ns
        self._last_ns = frame.stamp_ns

    def publish(self) -> None:
        """Move the files to the output: the frames are a whole run.

        They are sorted by stamp; of several with one stamp the last counts. An old summary is
        removed, as it is of another run.
        """
        self._files.close()
        if not self._in_order:
            latest = {frame.stamp_ns: frame for frame in read_frames(self.folder)}
            frames = [latest[stamp_ns] for stamp_ns in sorted(latest)]
            write_frames(self.folder / FRAMES_FILE, frames)
            write_tum(self.folder / TRAJECTORY_FILE, trajectory_of(frames))
        output = self.folder.parent
        remove(output / SUMMARY_FILE)
        with write_errors(output):
            for name in (TRAJECTORY_FILE, FRAMES_FILE):
                (self.folder / name).replace(output / name)

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._keep_older and (self.folder / FRAMES_FILE).exists():
            with locked_folder(self.folder):
                self.folder.rename(_free_name(self.folder))
        self._lock.enter_context(locked_folder(self.folder))
        self._remove_files()
        frames, trajectory = self.folder / FRAMES_FILE, self.folder / TRAJECTORY_FILE
        self._frames = self._files.enter_context(frames.open("w", encoding="utf-8"))
        self._trajectory = self._files.enter_context(trajectory.open("w", encoding="utf-8"))
        self._trajectory.write(TUM_HEADER)

    def _remove_files(self) -> None:
        for name in (SUMMARY_FILE, TRAJECTORY_FILE, FRAMES_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            with suppress(OSError):  # on a full disk, what is buffered cannot be written either
                self._files.close()
            if self.count == 0:
                return
            if error is not None:
                self._explain(error)
                return
            with suppress(OSError):  # somebody may have put a file there
                self._remove_files()
                self.folder.rmdir()

    def _explain(self, error: BaseException) -> None:
        """Write the summary of a run that was stopped, and add to the error what is kept."""
        with suppress(PixlocError):  # the first error is the one to tell
            frames = read_frames(self.folder)
            total = "frames" if self._total is None else f"of {self._total} frames"
            error.add_note(f"{len(frames)} {total} are kept in {self.folder}")
            why = f": {one_line(error)}" if isinstance(error, Exception) else ""
            known = {**self._provenance, "interrupted": f"after {len(frames)} {total}{why}"}
            write_summary(self.folder, evaluate(frames, provenance=known))


def _free_name(folder: Path) -> Path:
    """Return the first of NAME-1, NAME-2 ... that does not exist."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


class ResumableRun:
    """The results of independent queries in a folder, which a later process can complete.

    settings: everything that results depend on. Raises DataError if the folder's results depend on
    other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._path = folder, folder / FRAMES_FILE
        folder.mkdir(parents=True, exist_ok=True)
        _check_same_settings(folder, settings)
        self.done = _read_done(self._path)

    def add(self, result: FrameResult) -> None:
        """Append a result to the file."""
        with write_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(result.model_dump_json() + "\n")
        self.done[result.name] = result

    @property
    def note(self) -> str:
        """What to tell people when the run is stopped."""
        return f"what is done is kept in {self._folder}: the same command goes on there"


@contextmanager
def resumable_run(folder: Path, settings: Mapping[str, Any]) -> Iterator[ResumableRun]:
    """Yield a `ResumableRun` in a folder of its own, which is removed after the block.

    It stays if the block fails, unless there are no results. Raises DataError also while another
    process writes there.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        run = ResumableRun(folder, settings)
        try:
            yield run
        except BaseException as error:
            if run.done:
                error.add_note(run.note)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def partial_path(output: Path) -> Path:
    """Return the folder for the records of a run that is to end in one file."""
    return output.with_suffix(".partial")


def _check_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    path, text = folder / SETTINGS_FILE, json.dumps(settings, indent=1, sort_keys=True)
    if not path.is_file():
        write_text(path, text + "\n")
        return
    known = read_json(path, DataError)
    ours = json.loads(text)
    if known != ours:
        other = next(key for key in {**known, **ours} if known.get(key) != ours.get(key))
        raise DataError(
            f"{folder} has results of another {other}: give another --output, or remove the folder"
        )


def _read_done(path: Path) -> dict[str, FrameResult]:
    """Read results by name, and remove a last line that a kill has cut: the next ones follow it."""
    if not path.is_file():
        return {}
    try:
        results = read_frames(path)
    except DataError as error:
        error.add_note(f"remove {path} to localize again")
        raise
    write_frames(path, results)
    return {result.name: result for result in results}
