"""How the camera takes an image, beyond what camera_info says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pixloc_ros.config.section import Section

STAMP_SHARES = {"first": 0.0, "middle": 0.5, "last": 1.0}  # of the time that the readout takes


class CameraConfig(Section):
    """The shutter. Of a rig, all cameras have the same."""

    readout_s: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Time from the exposure of the first row to that of the last, in seconds, of a "
        "camera with a rolling shutter; 0: all rows are exposed at once. Rows are aligned from "
        "where the odometry has the camera when they are exposed. The image must be as the sensor "
        "read it: neither rectified nor turned.",
    )
    stamp_row: Literal["first", "middle", "last"] = Field(
        default="first",
        description="The row whose exposure the stamp of an image is of; the pose is of that time. "
        "Only for a rolling shutter.",
    )

    @property
    def stamp_share(self) -> float:
        """When the stamp is: 0 at the first row, 1 at the last."""
        return STAMP_SHARES[self.stamp_row]

    def exposed_ns(self, stamp_ns: int) -> tuple[int, int]:
        """When the first row of an image is exposed, and when the last."""
        first_ns = stamp_ns - round(self.stamp_share * self.readout_s * 1e9)
        return first_ns, first_ns + round(self.readout_s * 1e9)
