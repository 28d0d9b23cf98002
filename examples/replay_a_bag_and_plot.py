"""Localize along a rosbag2, without ROS, and plot the positions of the vehicle.

    python examples/replay_a_bag_and_plot.py drive_bag my_map plot.png

`pixloc replay` does the same and more (report, figures, ground truth). Here you control the loop:
each event of the bag goes into the session, and each image returns an estimate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from pixloc_ros import Config, Localizer, Session
from pixloc_ros.replay.bag_reader import BagReader

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap or .db3")
    parser.add_argument("map", help="map folder")
    parser.add_argument("plot", type=Path, help="plot to write, .png or .svg")
    arguments = parser.parse_args()

    localizer = Localizer(Config(map=arguments.map))
    # The session holds the state of a drive: transforms, odometry, GNSS, the last pose. The live
    # node uses the same class.
    session = Session(localizer)
    positions, sigmas_m, reasons = [], [], []
    with BagReader(arguments.bag) as reader:
        for estimate in session.run(reader.events()):
            reasons.append(estimate.reason)
            if estimate.T_map_base is not None and estimate.covariance is not None:
                positions.append(estimate.T_map_base[:2, 3])
                sigmas_m.append(np.sqrt(np.diag(estimate.covariance)[:2].max()))

    keyframes = localizer.map.keyframe_T_map_cam[:, :2, 3]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.plot(*keyframes.T, "+", color="0.6", label="keyframes of the map")
    if positions:
        points = axes.scatter(*np.array(positions).T, c=sigmas_m, s=12, label="localized frames")
        figure.colorbar(points, location="bottom", label="standard deviation, m")
    axes.set(xlabel="x, m", ylabel="y, m", aspect="equal")
    axes.legend()
    figure.savefig(arguments.plot)
    refused = {reason: reasons.count(reason) for reason in set(reasons) if reason != "ok"}
    print(f"localized {len(positions)} of {len(reasons)} frames; others by reason: {refused}")


if __name__ == "__main__":
    main()
