"""Localize one image on a map.

    python examples/localize_one_image.py my_map query.jpg --intrinsics 400,400,318,193
    python examples/localize_one_image.py my_map query.jpg --intrinsics 400,400,318,193 \
        --prior 12.0,3.5,1.4,-0.5,0.5,-0.5,0.5

Without --prior the whole map is searched for keyframes that look like the image.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros import Camera, Config, Frame, Localizer, PosePrior


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("map", help="map folder, see `pixloc map build`")
    parser.add_argument("image")
    parser.add_argument("--intrinsics", type=numbers, required=True, help="FX,FY,CX,CY in pixels")
    parser.add_argument("--prior", type=numbers, help="X,Y,Z,QX,QY,QZ,QW of the camera in the map")
    parser.add_argument("--prior-sigma", type=numbers, default=[1.0, 3.0], help="METRES,DEGREES")
    arguments = parser.parse_args()

    # The map names the network that it was built with; the localizer must use the same one.
    localizer = Localizer(Config(map=arguments.map))

    # A frame is an image with its calibration. T_base_cam is the pose of the camera on the
    # vehicle: with the identity, "base" is the camera and the result is the camera's pose.
    image_rgb = cv2.cvtColor(cv2.imread(arguments.image), cv2.COLOR_BGR2RGB)
    height, width = image_rgb.shape[:2]
    fx, fy, cx, cy = arguments.intrinsics
    camera = Camera.create("PINHOLE", [width, height], [fx, fy], [cx, cy])
    frame = Frame(image_rgb, camera, stamp_ns=0, T_base_cam=np.eye(4))

    prior = None
    if arguments.prior:
        T_map_base = np.eye(4)
        T_map_base[:3, :3] = Rotation.from_quat(arguments.prior[3:]).as_matrix()
        T_map_base[:3, 3] = arguments.prior[:3]
        # The covariance determines how many initial poses are tried, and how far the result may
        # be from the prior: (6, 6), translation in m^2, then rotation in rad^2, in map axes.
        sigma_m, sigma_deg = arguments.prior_sigma
        covariance = np.diag([sigma_m**2] * 3 + [np.deg2rad(sigma_deg) ** 2] * 3)
        prior = PosePrior(T_map_base, covariance, source="file", stamp_ns=0)

    estimate = localizer.localize(frame, prior)
    if not estimate.ok:  # an expected outcome, and never an identity pose
        raise SystemExit(f"{estimate.status}, {estimate.reason}: {estimate.message}")
    assert estimate.T_map_base is not None and estimate.covariance is not None
    sigma = np.sqrt(np.diag(estimate.covariance))
    x, y, z = estimate.T_map_base[:3, 3]
    print(f"position in the map: {x:.3f} {y:.3f} {z:.3f} m")
    print(f"quaternion (xyzw): {Rotation.from_matrix(estimate.T_map_base[:3, :3]).as_quat()}")
    print(f"standard deviation: {sigma[:3].max():.3f} m, {np.rad2deg(sigma[3:].max()):.3f} deg")
    print(f"inliers: {estimate.alignment.inlier_share:.0%}" if estimate.alignment else "")


if __name__ == "__main__":
    main()
