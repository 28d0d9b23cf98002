"""Make an occupancy grid for nav2 from a point cloud in the map's frame.

    pixloc map export my_map --ply points.ply          # or a lidar cloud: `pixloc map cloud`
    python examples/occupancy_grid.py points.ply grid --ground 0.0

Writes grid.pgm and grid.yaml for nav2's map_server, in the frame of the cloud, which is the frame
of the localizer's poses. A cell is occupied if enough points lie between two heights above the
ground, free if only the ground was seen, and unknown otherwise. The ground is a plane of constant
z. Open3D reads the cloud and removes outliers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import open3d

OCCUPIED, FREE, UNKNOWN = 0, 254, 205  # grey values of map_server's trinary mode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cloud", type=Path, help="PLY or PCD, in the map's frame, z up")
    parser.add_argument("output", type=Path, help="grid to write, without .pgm and .yaml")
    parser.add_argument("--ground", type=float, default=0.0, help="z of the ground, m")
    parser.add_argument("--low", type=float, default=0.2, help="least height of obstacles, m")
    parser.add_argument("--high", type=float, default=2.0, help="greatest height of obstacles, m")
    parser.add_argument("--cell", type=float, default=0.1, help="side of a cell, m")
    parser.add_argument("--points", type=int, default=2, help="least number in an occupied cell")
    arguments = parser.parse_args()

    cloud = open3d.io.read_point_cloud(str(arguments.cloud))
    cloud, _ = cloud.remove_statistical_outlier(nb_neighbors=10, std_ratio=3.0)
    points = np.asarray(cloud.points)
    above_m = points[:, 2] - arguments.ground
    near = (above_m > -arguments.low) & (above_m < arguments.high)
    points, above_m = points[near], above_m[near]
    low = np.floor(points[:, :2].min(0) / arguments.cell) * arguments.cell
    column, row = ((points[:, :2] - low) / arguments.cell).astype(int).T
    stands = above_m > arguments.low

    standing, ground = (np.zeros((row.max() + 1, column.max() + 1), int) for _ in range(2))
    np.add.at(standing, (row[stands], column[stands]), 1)
    np.add.at(ground, (row[~stands], column[~stands]), 1)
    grid = np.full(standing.shape, UNKNOWN, np.uint8)
    grid[ground > 0] = FREE
    grid[standing >= arguments.points] = OCCUPIED

    image = arguments.output.with_suffix(".pgm")
    cv2.imwrite(str(image), grid[::-1])  # the first row of an image is the farthest in y
    arguments.output.with_suffix(".yaml").write_text(
        f"image: {image.name}\nmode: trinary\nresolution: {arguments.cell}\n"
        f"origin: [{low[0]:.3f}, {low[1]:.3f}, 0.0]\nnegate: 0\n"
        "occupied_thresh: 0.65\nfree_thresh: 0.196\n"
    )
    counts = [int((grid == value).sum()) for value in (OCCUPIED, FREE, UNKNOWN)]
    print("{} cells occupied, {} free, {} unknown".format(*counts))


if __name__ == "__main__":
    main()
