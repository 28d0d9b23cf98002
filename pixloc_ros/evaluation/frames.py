"""The record of one frame, which is one line of frames.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from scipy.spatial.transform import Rotation

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.types import Estimate, PosePrior, Status

Vector = tuple[float, float, float]

FRAMES_FILE = "frames.jsonl"
VERIFICATION_FIELDS = (
    "sharpness",
    "contrast",
    "spread",
    "runner_up_loss",
    "halves_px",
)  # fields of Evidence


def _finite(value: Any) -> Any:
    """Replace the infinities of `Alignment` by None, as JSON has none."""
    return value if value is None or np.isfinite(value) else None


Finite = Annotated[float | None, BeforeValidator(_finite)]


class Record(BaseModel):
    """Base of all records: frozen; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PoseRecord(Record):
    """T_map_base as a position in metres and a ROS quaternion."""

    xyz: Vector
    quat_xyzw: tuple[float, float, float, float]

    @classmethod
    def of(cls, T_map_base: Matrix) -> PoseRecord:
        """Convert T_map_base (4, 4)."""
        return cls(xyz=tuple(T_map_base[:3, 3]), quat_xyzw=tuple(se3.quat_xyzw(T_map_base)))

    def matrix(self) -> Matrix:
        """Return (4, 4)."""
        return se3.from_quat_xyzw(self.quat_xyzw, self.xyz)


class Sigma(Record):
    """Square roots of the diagonal of a covariance, in map axes."""

    xyz_m: Vector
    rotation_deg: Vector

    @classmethod
    def of(cls, covariance: Matrix) -> Sigma:
        """Convert a covariance (6, 6) in map axes, m^2 and rad^2."""
        sigma = np.sqrt(np.diagonal(covariance))
        return cls(xyz_m=tuple(sigma[:3]), rotation_deg=tuple(np.rad2deg(sigma[3:])))


class PoseError(Record):
    """The difference between a pose and the true one."""

    translation_m: float
    rotation_deg: float
    along_cross_up_m: Vector  # in the axes of the true base_link: forward, left, up
    map_xyz_m: Vector  # the same translation in map axes
    map_rotation_deg: Vector  # rotation vector about map axes

    @classmethod
    def of(cls, T_map_base: Matrix, T_map_base_true: Matrix) -> PoseError:
        """Compare T_map_base (4, 4) with the true pose."""
        shift = T_map_base[:3, 3] - T_map_base_true[:3, 3]
        R_map_error = T_map_base[:3, :3] @ T_map_base_true[:3, :3].T
        turn_deg = np.rad2deg(Rotation.from_matrix(R_map_error).as_rotvec())
        return cls(
            translation_m=float(np.linalg.norm(shift)),
            rotation_deg=float(np.linalg.norm(turn_deg)),
            along_cross_up_m=tuple(T_map_base_true[:3, :3].T @ shift),
            map_xyz_m=tuple(shift),
            map_rotation_deg=tuple(turn_deg),
        )

    def within(self, max_m: float, max_deg: float) -> bool:
        """Return whether both errors are at most these limits."""
        return self.translation_m <= max_m and self.rotation_deg <= max_deg


class PriorRecord(Record):
    """Where the search began."""

    source: str
    pose: PoseRecord
    sigma: Sigma
    error: PoseError | None = None

    @classmethod
    def of(cls, prior: PosePrior) -> PriorRecord:
        """Convert a prior."""
        pose = PoseRecord.of(prior.T_map_base)
        return cls(source=prior.source, pose=pose, sigma=Sigma.of(prior.covariance))


class FrameResult(Record):
    """The result for one frame; `truth` and errors are present if the truth is known."""

    name: str
    stamp_ns: int
    status: Status
    reason: str
    message: str = ""
    pose: PoseRecord | None = None  # only with status OK
    sigma: Sigma | None = None
    candidate: PoseRecord | None = None  # found but not accepted
    truth: PoseRecord | None = None
    error: PoseError | None = None
    candidate_error: PoseError | None = None
    prior: PriorRecord | None = None
    cost: Finite = None
    inlier_share: Finite = None
    iterations: tuple[int, ...] = ()
    hypotheses: int = 0
    runner_up_cost: Finite = None
    condition: Finite = None
    points: int = 0
    wrong_probability: Finite = None
    protection_level_m: Finite = None  # only with status OK
    protection_risk: Finite = None
    ambiguity_m: Finite = None  # 0: no other place fits as well; None: not compared
    sharpness: Finite = None
    contrast: Finite = None
    spread: Finite = None
    runner_up_loss: Finite = None
    halves_px: Finite = None  # if they were needed
    keyframes: tuple[str, ...] = ()
    timing_ms: dict[str, float] = Field(default_factory=dict)
    cameras: tuple[str, ...] = ()  # of a rig: those aligned, the lead first

    @property
    def ok(self) -> bool:
        """Whether the pose was accepted."""
        return self.status is Status.OK

    @property
    def latency_ms(self) -> float | None:
        """The stage named total, or else the sum of all stages."""
        if not self.timing_ms:
            return None
        return self.timing_ms.get("total", sum(self.timing_ms.values()))


def frame_result(estimate: Estimate, truth: Trajectory | None = None) -> FrameResult:
    """Make the record of an estimate, compared with the truth at its stamp."""
    frame = FrameResult(
        name=estimate.name or str(estimate.stamp_ns),
        stamp_ns=estimate.stamp_ns,
        status=estimate.status,
        reason=str(estimate.reason),
        message=estimate.message,
        pose=_pose(estimate.T_map_base),
        sigma=None if estimate.covariance is None else Sigma.of(estimate.covariance),
        candidate=None if estimate.ok else _pose(estimate.candidate_T_map_base),
        prior=None if estimate.prior is None else PriorRecord.of(estimate.prior),
        keyframes=estimate.keyframes,
        timing_ms=estimate.timing_ms,
        cameras=estimate.cameras,
        **_alignment_fields(estimate),
        **_verification_fields(estimate),
    )
    return frame if truth is None else with_truth(frame, truth.at(frame.stamp_ns))


def with_truth(frame: FrameResult, T_map_base_true: Matrix | None) -> FrameResult:
    """Return the record compared with the true pose (4, 4); None removes truth and errors."""
    prior = frame.prior
    if prior is not None:
        prior = prior.model_copy(update={"error": _error(prior.pose, T_map_base_true)})
    changes = {
        "truth": _pose(T_map_base_true),
        "error": _error(frame.pose, T_map_base_true),
        "candidate_error": _error(frame.candidate, T_map_base_true),
        "prior": prior,
    }
    return frame.model_copy(update=changes)


def read_frames(path: str | Path) -> list[FrameResult]:
    """Read frames.jsonl, or the one in a run folder. Raises DataError naming the wrong line.

    A last line that its writer did not finish, because it was killed, is left out.
    """
    path = Path(path) / FRAMES_FILE if Path(path).is_dir() else Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not _is_whole(lines[-1]):
            lines.pop()
        return [_parse(f"{path}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(f"cannot read frames from {path}: {reason}") from None


def write_frames(path: str | Path, frames: Iterable[FrameResult]) -> None:
    """Write one line per frame, atomically."""
    write_text(path, "".join(frame.model_dump_json() + "\n" for frame in frames))


def trajectory_of(frames: Sequence[FrameResult]) -> Trajectory:
    """Return the poses of the localized frames, sorted by stamp."""
    found = [frame for frame in frames if frame.pose is not None]
    return Trajectory.create(
        (frame.stamp_ns for frame in found), (f.pose.matrix() for f in found if f.pose)
    )


def _is_whole(line: str) -> bool:
    """Return whether a line ends, or at least is a value: people may leave out the last end."""
    if line.endswith("\n"):
        return True
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(where: str, line: str) -> FrameResult:
    try:
        return FrameResult.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        raise DataError(f"{where}: {field}: {first['msg']}") from None


def _alignment_fields(estimate: Estimate) -> dict[str, Any]:
    alignment = estimate.alignment
    if alignment is None:
        return {}
    names = ("cost", "inlier_share", "iterations", "hypotheses", "runner_up_cost", "condition")
    return {name: getattr(alignment, name) for name in names} | {
        "points": len(alignment.points_map)
    }


def _verification_fields(estimate: Estimate) -> dict[str, Any]:
    evidence, level = estimate.evidence, estimate.protection_level
    fields: dict[str, Any] = {
        "wrong_probability": estimate.wrong_probability,
        "ambiguity_m": estimate.ambiguity_m,
    }
    if level is not None:
        fields |= {"protection_level_m": level.error_m, "protection_risk": level.risk}
    if evidence is not None:
        fields |= {name: getattr(evidence, name) for name in VERIFICATION_FIELDS}
    return fields


def _pose(T_map_base: Matrix | None) -> PoseRecord | None:
    return None if T_map_base is None else PoseRecord.of(T_map_base)


def _error(pose: PoseRecord | None, T_map_base_true: Matrix | None) -> PoseError | None:
    if pose is None or T_map_base_true is None:
        return None
    return PoseError.of(pose.matrix(), T_map_base_true)
