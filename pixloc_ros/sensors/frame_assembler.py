"""Make frames of images: add the camera's calibration and its place on the vehicle."""

from __future__ import annotations

from collections.abc import Mapping

from pixloc_ros.config import NodeConfig
from pixloc_ros.errors import DataError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.sensors.calibrations import Calibrations
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import CameraInfoEvent, Image, ImageEvent, RefusedMessage
from pixloc_ros.sensors.static_transforms import normalized
from pixloc_ros.sensors.vehicle_frames import VehicleFrames
from pixloc_ros.types import Frame, Reason


class NotReady(DataError):
    """Raised when an image cannot be made a frame yet; has a reason and one line."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FrameAssembler:
    """Knows the calibration of each camera, and where it sits on the vehicle."""

    def __init__(self, calibrations: Calibrations, frames: VehicleFrames) -> None:
        self._calibrations = calibrations
        self._frames = frames

    def awaits(self, images: Mapping[str, ImageEvent | RefusedMessage], config: NodeConfig) -> bool:
        """Return whether all cameras lack something that a later message may bring."""
        events = {name: e for name, e in images.items() if isinstance(e, ImageEvent)}
        if any(self._is_ready(name, event, config) for name, event in events.items()):
            return False
        return any(not self._calibrations.problem(name) for name in events)

    def frame(
        self, camera_name: str, event: ImageEvent, image_rgb: Image, name: str, config: NodeConfig
    ) -> Frame:
        """Return the frame of an image (H, W, 3).

        Raises NotReady if calibration or mounting is not known, and BadMessage if the image does
        not match its calibration.
        """
        calibration = self._calibrations.of(camera_name)
        if calibration is None:
            raise NotReady(Reason.NO_CAMERA_INFO, self._why_no_calibration(camera_name))
        if why := self._calibrations.unsettled(camera_name, event.stamp_ns):
            raise NotReady(Reason.CALIBRATION_UNSETTLED, why)
        _require_same_frame(event, calibration, config)
        T_base_cam = self._extrinsics(self.camera_frame(event, config), config)
        stamp_ns = event.stamp_ns
        return Frame(image_rgb, calibration.camera, stamp_ns, T_base_cam, name, camera_name)

    def camera_frame(self, image: ImageEvent | RefusedMessage, config: NodeConfig) -> str:
        """Return the optical frame of an image's camera; empty if unknown."""
        frame_id = image.frame_id if isinstance(image, ImageEvent) else ""
        calibration = self._calibrations.of(image.camera_name)
        return config.camera_frame or frame_id or (calibration.frame_id if calibration else "")

    def _is_ready(self, camera_name: str, event: ImageEvent, config: NodeConfig) -> bool:
        if self._calibrations.of(camera_name) is None:
            return False
        camera_frame = self.camera_frame(event, config)
        return self._frames.camera_mounting(camera_frame, config) is not None

    def _why_no_calibration(self, camera_name: str) -> str:
        of = f" of camera {camera_name}" if camera_name else ""
        if problem := self._calibrations.problem(camera_name):
            return f"the last message on camera_info{of} was refused: {problem}"
        return f"no usable message on camera_info yet{of}"

    def _extrinsics(self, camera_frame: str, config: NodeConfig) -> Matrix:
        """Return T_base_cam (4, 4). Raises NotReady if it is unknown."""
        T_base_cam = self._frames.camera_mounting(camera_frame, config)
        if T_base_cam is not None:
            return T_base_cam
        raise NotReady(Reason.NO_EXTRINSICS, self._frames.no_mounting(camera_frame, config))


def _require_same_frame(
    image: ImageEvent, calibration: CameraInfoEvent, config: NodeConfig
) -> None:
    frames = image.frame_id, calibration.frame_id
    if not config.camera_frame and all(frames) and normalized(frames[0]) != normalized(frames[1]):
        raise BadMessage(
            "frame",
            f"image has frame '{frames[0]}', camera_info has '{frames[1]}': correct the driver, "
            "or set node.camera_frame",
        )
