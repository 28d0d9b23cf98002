"""How the camera takes an image, as far as camera_info does not say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pixloc_ros.config.section import Section

STAMP_SHARES = {"first": 0.0, "middle": 0.5, "last": 1.0}  # share of the readout time


class CameraConfig(Section):
    """The shutter. All cameras of a rig share these settings."""

    readout_s: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Time in seconds from the exposure of the first row to that of the last, for a "
        "camera with a rolling shutter; 0: all rows are exposed at once. Each row is then aligned "
        "from where the odometry puts the camera at its exposure. The image must be as the sensor "
        "read it: neither rectified nor rotated.",
    )
    stamp_row: Literal["first", "middle", "last"] = Field(
        default="first",
        description="The row that is exposed at the stamp of an image; the pose refers to that "
        "time. Only for a rolling shutter.",
    )

    @property
    def stamp_share(self) -> float:
        """When the stamp is taken: 0 at the first row, 1 at the last."""
        return STAMP_SHARES[self.stamp_row]

    def exposed_ns(self, stamp_ns: int) -> tuple[int, int]:
        """Return when the first and the last row of an image are exposed."""
        first_ns = stamp_ns - round(self.stamp_share * self.readout_s * 1e9)
        return first_ns, first_ns + round(self.readout_s * 1e9)
