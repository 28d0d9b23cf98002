"""Take the shots for the verification: places and sessions used to fit, choose and judge.

The split is by place and by session, and was fixed before any result was known
(docs/lab/verification.md). Wrong places are queries from another drive, and precise priors that are
off along the street.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SetOption
from pixloc_ros.common.atomic_write import atomic_path
from pixloc_ros.config import from_flat
from pixloc_ros.evaluation.shots import CLEAN, Offset, Shot, posed_frames
from pixloc_ros.evaluation.verification_fit import record
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import (
    base_covariance_from_cam,
    base_error,
    diagonal,
    perturb_base,
    turned,
)
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import PosedImages, read_posed_images
from pixloc_ros.types import Frame, Matrix, PosePrior

LIMITS = ("not_converged", "high_cost", "ill_conditioned", "far_from_prior", "non_finite")
MIXED = (
    *("clean", "night", "blur", "rain", "fog", "occlusion"),
    *("occlusion+night", "occlusion+rain", "occlusion+blur", "fog+night"),
)
MORE_MIXED = (*MIXED[3:5], *MIXED[6:], "night+blur", "rain+blur", "fog+occlusion")
DAYS = (
    *("later", "night", "low_sun", "overcast", "wet", "snow"),
    *("bare_trees", "busy", "repainted", "other_camera"),
)
SOME_DAYS = ("later", "night", "low_sun", "other_camera")
HONEST = ("0.5,1", "2,3", "4,5")  # m and deg off, with a covariance to match
ALONG = ("along 3", "along 6", "along 12", "along 25")  # metres off, claiming 0.5 m
ANYWHERE = ("0.5,1",) * 18 + ("2,3", "none")  # around keyframes, for images of other places


@dataclass(frozen=True, slots=True)
class ShotSet:
    """Frames of a drive on a map. keyframes: priors at those, for images of other places."""

    name: str
    map: str
    drive: str
    frames: Sequence[int]
    sessions: Sequence[str] = (CLEAN,)
    priors: Sequence[str] = HONEST
    keyframes: tuple[int, int] | None = None  # numbers of their files
    per_frame: int = 1


def kitti(first: int, end: int, every: int) -> list[int]:
    """Frames of KITTI 03 that are not in its map."""
    return [i for i in range(first, end) if i % 3][::every]


def streets(seeds: Sequence[int], days: Sequence[str], every: int = 1) -> Iterator[ShotSet]:
    """Generated streets, each with one map and some sessions."""
    for seed in seeds:
        for day in days:
            priors = ("2,3", "along 6")
            frames = range(0, 12, every)
            yield ShotSet(
                f"street {seed} {day}",
                f"street{seed}",
                f"street{seed}/{day}",
                frames,
                priors=priors,
            )


def elsewhere(on: str, drive: str, frames: Sequence[int], per_frame: int, **more: Any) -> ShotSet:
    """Images of another place, at any keyframe of a map or at some."""
    places = more.pop("keyframes", (0, 10**9))
    return ShotSet(
        f"{drive.replace('/', ' ')} on {on}",
        on,
        drive,
        frames,
        priors=(),
        keyframes=places,
        per_frame=per_frame,
        **more,
    )


REPEATING = ("2,3", "4,5", "none", "along 6")
GP = ("0.5,1", "1,3", "2,5", "none", *ALONG[:3])
SPLITS: dict[str, list[ShotSet]] = {
    "fit": [
        ShotSet("gardens a", "gp_a", "gp_a/day", range(20), ("clean", "night", "occlusion"), GP),
        ShotSet("kitti", "kitti", "kitti", kitti(0, 140, 6), MIXED, (*HONEST, *ALONG[1:])),
        *streets((0, 1), SOME_DAYS),
        elsewhere(
            "kitti", "raw", range(0, 67, 3), 5, keyframes=(0, 140), sessions=("clean", "occlusion")
        ),
        elsewhere("street1", "street0/night", range(0, 12, 2), 8),
        elsewhere("street0", "street1/later", range(0, 12, 2), 8),
    ],
    "choose": [
        ShotSet("gardens a", "gp_a", "gp_a/day", range(20, 40), priors=GP),
        ShotSet("kitti", "kitti", "kitti", kitti(145, 220, 6), MIXED, (*HONEST, *ALONG[1:])),
        *streets((2,), (*SOME_DAYS, "overcast", "repainted"), 2),
        elsewhere(
            "kitti", "raw", range(67, 134, 3), 5, keyframes=(145, 220), sessions=("clean", "night")
        ),
    ],
    "judge": [
        ShotSet("gardens b day", "gp_b", "gp_b/day", range(11), priors=GP),
        ShotSet("gardens b night", "gp_b", "gp_b/night", range(6), priors=GP),
        ShotSet("gardens a night", "gp_a", "gp_a/night", range(1), priors=GP),
        ShotSet("kitti", "kitti", "kitti", kitti(225, 380, 4), MIXED[:3] + MIXED[5:6], ("2,3",)),
        *streets((3, 4), DAYS, 2),
        elsewhere("gp_a", "gp_b/night", range(6), 80),
        elsewhere("gp_a", "gp_b/day", range(11), 60),
        elsewhere("gp_b", "gp_a/night", range(1), 100),
        *(elsewhere("gp_b", "gp_a/day", range(i, i + 10), 25) for i in (0, 10, 20, 30)),
        *(
            elsewhere("kitti", "frag", range(i, min(i + 6, 51)), 40, keyframes=(225, 380))
            for i in range(0, 51, 6)
        ),
        *(
            elsewhere(
                "kitti", "frag", range(0, 51, 3), 20, keyframes=(225, 380), sessions=(session,)
            )
            for session in ("occlusion", "night", "blur")
        ),
        *(
            elsewhere(f"street{7 - s}", f"street{s}/{day}", range(0, 12, 4), 10)
            for s in (3, 4)
            for day in DAYS
        ),
        ShotSet("kitti mixed", "kitti", "kitti", kitti(225, 380, 4), MORE_MIXED, ("2,3",)),
        *(
            ShotSet(
                f"street {kind}", f"street{kind}", f"street{kind}/later", range(9), priors=REPEATING
            )
            for kind in ("repeating", "repeating_facades")
        ),
        ShotSet(
            "kitti off", "kitti", "kitti", kitti(225, 380, 8), MIXED[:1] + MIXED[5:6], ALONG[1:3]
        ),
    ],
}


class Recorder:
    """Takes the shots of sets from data/, maps/ and streets/ below two folders."""

    def __init__(self, data: Path, work: Path, settings: dict[str, Any] | None = None):
        self.data, self.work = data, work
        self.settings = settings or {}

    def drive(self, name: str) -> PosedImages:
        """Return the drive of a set."""
        if name.startswith("street"):
            folder = street_drive(self.work, name)
            return read_posed_images(folder / "meta.json", folder / "images")
        base, _, which = name.partition("/")
        folder = self.data / FOLDERS[base]
        meta = folder / f"meta_{which}.json" if which else folder / "meta.json"
        if base == "raw":
            meta = self.work / "raw_meta.json"  # its images have no poses: all at the origin
        return read_posed_images(meta, folder / "images", "optical_to_ros")

    def take(self, shots: ShotSet, every: int = 1) -> Iterator[dict[str, Any]]:
        """Return the records of a set: those of `pixloc verification`, and more for the study."""
        localizer = Localizer(
            from_flat({"map": str(map_folder(self.work, shots.map)), **self.settings})
        )
        remember_features(localizer)
        drive = self.drive(shots.drive)
        for i in shots.frames[::every]:
            for session in shots.sessions:
                ((frame, T_true),) = posed_frames(drive, [i], session, seed=i)
                rng = np.random.default_rng(zlib.crc32(f"{shots.name} {i} {session}".encode()))
                for kind, prior in _priors(shots, localizer, frame, T_true, rng):
                    true = None if shots.keyframes else T_true
                    yield from _record(localizer, frame, prior, true, shots, session, kind)


FOLDERS = {
    "kitti": "eval/kitti03_a", "frag": "eval/kitti_frag1", "raw": "train_posed/kitti_raw_0095",
    "gp_a": "eval/gardens_point_a", "gp_b": "eval/gardens_point_b",
}  # fmt: skip


def street_drive(work: Path, name: str) -> Path:
    """Return the folder of `street3/night`: images and meta.json."""
    street, session = name.removeprefix("street").split("/")
    return work / "streets" / street / ("street/drive" if session == "later" else session)


def map_folder(work: Path, name: str) -> Path:
    """Return the folder of the map of a set."""
    return work / "maps" / name


def remember_features(localizer: Localizer) -> None:
    """Keep the features of the last image: many shots share one image."""
    extract = localizer.features.extract
    last: dict[str, Any] = {}

    def remembered(image_rgb: Any) -> Any:
        if last.get("image") is not image_rgb:
            last.update(image=image_rgb, pyramid=extract(image_rgb))
        return last["pyramid"]

    localizer.features.extract = remembered  # type: ignore[method-assign]


def _priors(
    shots: ShotSet, localizer: Localizer, frame: Frame, T_true: Matrix, rng: np.random.Generator
) -> Iterator[tuple[str, PosePrior | None]]:
    kinds = shots.priors
    places = None
    if shots.keyframes is not None:
        map_ = localizer.map
        numbers = [int(Path(n).stem) if Path(n).stem.isdigit() else 0 for n in map_.keyframe_names]
        first, end = shots.keyframes
        places = [k for k, number in enumerate(numbers) if first <= number < end]
        kinds = [ANYWHERE[k % len(ANYWHERE)] for k in range(shots.per_frame)]
    for kind in kinds:
        T_map_base = T_true
        if places is not None:
            keyframe = int(rng.choice(places))
            T_map_base = localizer.map.keyframe_T_map_cam[keyframe] @ se3.inverse(frame.T_base_cam)
        yield kind, _prior(kind, T_map_base, frame.stamp_ns, rng)


def _prior(
    kind: str, T_map_base: Matrix, stamp_ns: int, rng: np.random.Generator
) -> PosePrior | None:
    if kind == "none":
        return None
    if kind.startswith("along"):
        step_m = float(kind.split()[1]) * rng.uniform(0.8, 1.2) * rng.choice([-1.0, 1.0])
        T_moved = T_map_base @ se3.make(np.eye(3), [step_m, 0.0, 0.0])
        error = np.array([*rng.normal(0, 0.3, 2), 0, 0, 0, np.deg2rad(rng.normal(0, 0.7))])
        return PosePrior(perturb_base(T_moved, error), diagonal(0.5, 1.0), "shot", stamp_ns)
    distance_m, angle_deg = map(float, kind.split(","))
    return Offset(distance_m, angle_deg).prior(T_map_base, stamp_ns, rng)


def _record(
    localizer: Localizer,
    frame: Frame,
    prior: PosePrior | None,
    T_true: Matrix | None,
    shots: ShotSet,
    session: str,
    kind: str,
) -> Iterator[dict[str, Any]]:
    estimate = localizer.localize(frame, prior)
    found, alignment = estimate.candidate_T_map_base, estimate.alignment
    error_m = error_deg = float("inf")
    if T_true is not None and found is not None:
        error_m, error_deg = se3.distance_m(found, T_true), se3.angle_deg(found, T_true)
    line = record(Shot(estimate, error_m, error_deg), shots.name, session, kind)
    if line is None or alignment is None or found is None:
        place = {"place": shots.name, "session": session, "prior": kind, "frame": frame.name}
        yield {**place, "nothing": estimate.reason.value, "elsewhere": T_true is None}
        return
    limit = estimate.reason.value if estimate.reason.value in LIMITS else None
    more: dict[str, Any] = {
        "limit": limit,
        "cost": alignment.cost,
        "inlier_share": alignment.inlier_share,
    }
    more |= {"runner_up_cost": alignment.runner_up_cost, "elsewhere": T_true is None}
    more |= {"converged": alignment.converged, "timing_ms": estimate.timing_ms}
    level = estimate.protection_level
    more |= {"protection_m": level and level.error_m, "ambiguity_m": estimate.ambiguity_m}
    if T_true is not None:
        axes = found[:3, :3]
        more["error_axes"] = (base_error(found, T_true).reshape(2, 3) @ axes).ravel().tolist()
        own = base_covariance_from_cam(alignment.covariance_cam, found, frame.T_base_cam)
        more["variance_axes"] = np.diag(turned(own, axes.T)).tolist()  # before scale and floor
    yield json.loads(line.model_dump_json()) | more


def verification_shots(
    split: Annotated[str, typer.Argument(help="fit, choose or judge")],
    data: Annotated[Path, typer.Option(help="folder of the real data")],
    work: Annotated[Path, typer.Option(help="written by verification-places; adds records/")],
    only: Annotated[str, typer.Option(help="only sets whose name contains this")] = "",
    every: Annotated[int, typer.Option(min=1, help="every Nth frame of each set")] = 1,
    settings: SetOption = None,
) -> None:
    """Take the shots of one split; skip sets that exist.

    Example: research verification-shots fit --data ../shared/data --work verification
    """
    given = dict(entry.split("=", 1) for entry in settings or [])
    recorder = Recorder(data, work, given)
    for index, shots in enumerate(SPLITS[split]):
        path = work / "records" / split / f"{index:02d} {shots.name}.jsonl"
        if path.exists() or only not in shots.name:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part, part.open("w") as file:
            for line in track(recorder.take(shots, every), shots.name, None):
                file.write(json.dumps(line) + "\n")
                file.flush()
