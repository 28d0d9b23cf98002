"""Refine poses from another system (hloc, visual odometry, a pose regressor).

    python examples/refine_poses_of_another_system.py my_map images queries.txt poses.txt out.txt

queries.txt has lines `name MODEL width height params...`; poses.txt and out.txt have lines
`name qw qx qy qz tx ty tz`, COLMAP's cam_from_world, in the world of the model that the map was
built from. `pixloc localize` does the same on the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from pixloc_ros import Config, Frame, Localizer, PosePrior
from pixloc_ros.geometry.trajectory import read_poses, write_poses
from pixloc_ros.replay.queries import read_queries


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("map", "images", "queries", "poses", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--sigma-m", type=float, default=0.5, help="expected error per axis")
    parser.add_argument("--sigma-deg", type=float, default=1.0)
    arguments = parser.parse_args()

    localizer = Localizer(Config(map=str(arguments.map)))
    T_map_world = np.array(localizer.map.metadata.T_map_world).reshape(4, 4)
    covariance = np.diag([arguments.sigma_m**2] * 3 + [np.deg2rad(arguments.sigma_deg) ** 2] * 3)
    given = read_poses(arguments.poses)
    refined = dict(given)  # keeps the given pose where the alignment is refused
    for query in read_queries(arguments.queries, arguments.images):
        if query.name not in given:
            print(f"{query.name}: no pose given")
            continue
        T_map_cam = T_map_world @ np.linalg.inv(given[query.name])
        prior = PosePrior(T_map_cam, covariance, source="file", stamp_ns=0)
        image_rgb = cv2.cvtColor(cv2.imread(str(arguments.images / query.name)), cv2.COLOR_BGR2RGB)
        # The camera is its own base here, so T_map_base is T_map_cam.
        estimate = localizer.localize(Frame(image_rgb, query.camera, 0, np.eye(4)), prior)
        if estimate.T_map_base is None:
            print(f"{query.name}: kept as it was, {estimate.reason} ({estimate.message})")
            continue
        moved_m = np.linalg.norm(estimate.T_map_base[:3, 3] - T_map_cam[:3, 3])
        print(f"{query.name}: moved by {moved_m:.3f} m")
        refined[query.name] = np.linalg.inv(estimate.T_map_base) @ T_map_world
    write_poses(arguments.output, refined)


if __name__ == "__main__":
    main()
