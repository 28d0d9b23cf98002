"""Batched cameras in torch: projection and its analytic Jacobian.

The centre of the top-left pixel is (0, 0), as in OpenCV and CameraInfo; in COLMAP it is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.errors import CameraError
from pixloc_ros.geometry.distortion import COEFFICIENTS, FISHEYE, distort, one_to_one_limit
from pixloc_ros.geometry.rolling_shutter import RollingShutter
from pixloc_ros.geometry.se3 import Matrix

MIN_DEPTH_M = 1e-3
# Real cameras stay within these limits, and calculations do not overflow within them.
MAX_VALUE = 1e300  # of any parameter; integers in text may be of any size
MAX_SIDE_PX = 1e6
MAX_FOCAL_RATIO = 1e4  # of focal length to image side, and vice versa
MAX_COEFFICIENT = 1e12
MAX_ROWS_PER_ROW = 0.5  # that a point moves while one row is read; points so near are not matched
TENSORS = ("size", "focal", "center", "distortion", "max_radius2")

# COLMAP model -> (our model, number of focal lengths, order of the distortion coefficients)
COLMAP_MODELS: dict[str, tuple[str, int, int]] = {
    "SIMPLE_PINHOLE": ("PINHOLE", 1, 0),
    "PINHOLE": ("PINHOLE", 2, 0),
    "SIMPLE_RADIAL": ("RADIAL", 1, 1),
    "RADIAL": ("RADIAL", 1, 2),
    "OPENCV": ("OPENCV", 2, 4),
    "FULL_OPENCV": ("FULL_OPENCV", 2, 8),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", 2, 4),
}
ROS_MODELS = {
    "plumb_bob": "FULL_OPENCV",
    "rational_polynomial": "FULL_OPENCV",
    "equidistant": "OPENCV_FISHEYE",
    "fisheye": "OPENCV_FISHEYE",
}


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera, or a batch of cameras of one model.

    model: a key of COEFFICIENTS.
    size: (..., 2) width and height in pixels; may be fractional after scaling.
    focal, center: (..., 2) pixels.
    distortion: (..., D) coefficients in the model's order.
    max_radius2: (...) squared radius in the normalised plane (fisheye: squared angle in rad^2) up
    to which the distortion is one-to-one.
    shutter: how the camera moves while its rows are read; None for a global shutter.
    """

    model: str
    size: Tensor
    focal: Tensor
    center: Tensor
    distortion: Tensor
    max_radius2: Tensor
    shutter: RollingShutter | None = field(default=None, kw_only=True)

    @classmethod
    def create(
        cls,
        model: str,
        size: Sequence[float],
        focal: Sequence[float],
        center: Sequence[float],
        distortion: Sequence[float] = (),
    ) -> Camera:
        """Build an unbatched float64 camera. Raises CameraError for impossible values."""
        size, focal, center, distortion = (
            _numbers(f"camera {model}", values).tolist()
            for values in (size, focal, center, distortion)
        )
        _check(model, size, focal, center, distortion)
        used = distortion[: COEFFICIENTS[model]]
        d = np.zeros(COEFFICIENTS[model])
        d[: len(used)] = used
        return cls(
            model,
            size=_float64(size),
            focal=_float64(focal),
            center=_float64(center),
            distortion=_float64(d),
            max_radius2=_float64(one_to_one_limit(model, d)),
        )

    @classmethod
    def from_colmap(cls, model: str, width: int, height: int, params: Sequence[float]) -> Camera:
        """Build a camera from COLMAP's parameters, whose pixel centres are at +0.5.

        Raises CameraError for unsupported models and impossible values.
        """
        if not isinstance(model, str) or model not in COLMAP_MODELS:
            known = ", ".join(COLMAP_MODELS)
            raise CameraError(f"camera model {model} is not supported; convert to one of {known}")
        ours, n_focal, n_distortion = COLMAP_MODELS[model]
        params = _numbers(f"camera {model}", params).tolist()
        if len(params) != n_focal + 2 + n_distortion:
            expected = n_focal + 2 + n_distortion
            raise CameraError(f"camera model {model} has {expected} parameters, got {len(params)}")
        focal = [params[0], params[n_focal - 1]]
        center = [params[n_focal] - 0.5, params[n_focal + 1] - 0.5]
        return cls.create(ours, [width, height], focal, center, list(params[n_focal + 2 :]))

    @classmethod
    def from_ros(
        cls, model: str, width: int, height: int, K: Sequence[float], D: Sequence[float]
    ) -> Camera:
        """Build a camera from sensor_msgs/CameraInfo: K is row-major 3x3, D as the model has it.

        Coefficients are in OpenCV's order; drivers send all 5, 8, 12 or 14 with zeros for those
        that the model does not use. Raises CameraError for unsupported models and impossible
        values.
        """
        K = np.ravel(_numbers(f"camera '{model}': K", K)).tolist()
        D = _numbers(f"camera '{model}': D", D).tolist()
        if len(K) != 9:
            raise CameraError(f"camera '{model}': K has {len(K)} numbers instead of 9")
        pinhole = not model or not any(D)
        ours = "PINHOLE" if pinhole else ROS_MODELS.get(model, model)
        distortion = [] if pinhole else list(D)
        return cls.create(ours, [width, height], [K[0], K[4]], [K[2], K[5]], distortion)

    def to_colmap(self) -> tuple[str, int, int, list[float]]:
        """Return model, width, height and parameters in COLMAP's format, pixel centres at +0.5."""
        model, distortion = self.model, self.distortion.tolist()
        if model == "RADIAL":  # COLMAP's RADIAL has a single focal length
            model, distortion = "OPENCV", [*distortion, 0.0, 0.0]
        params = [*self.focal.tolist(), *(self.center + 0.5).tolist(), *distortion]
        return model, self.width, self.height, params

    def to_ros(self) -> tuple[str, list[float]]:
        """Return distortion model and coefficients of sensor_msgs/CameraInfo, unbatched.

        This inverts from_ros; a model that OpenCV lacks becomes the more general one that includes
        it.
        """
        d = self.distortion.tolist()
        if self.model == FISHEYE:
            return "equidistant", d
        if self.model == "RADIAL":
            d = [*d, 0.0, 0.0]
        brown_conrady = [*d, *[0.0] * (8 - len(d))]
        if any(brown_conrady[5:]):
            return "rational_polynomial", brown_conrady
        return "plumb_bob", brown_conrady[:5]

    @classmethod
    def stack(cls, cameras: Sequence[Camera]) -> Camera:
        """Make a batch (B,) of cameras of one model, all with a rolling shutter or all without."""
        stacked = (torch.stack([getattr(c, name) for c in cameras]) for name in TENSORS)
        shutters = [camera.shutter for camera in cameras if camera.shutter is not None]
        shutter = RollingShutter.stack(shutters) if shutters else None
        return cls(cameras[0].model, *stacked, shutter=shutter)

    def __getitem__(self, index: Tensor) -> Camera:
        """Select cameras of a batch."""
        return self._each(lambda tensor: tensor[index])

    @property
    def width(self) -> int:
        """Width in whole pixels of an unbatched camera."""
        return round(float(self.size[..., 0]))

    @property
    def height(self) -> int:
        """Height in whole pixels of an unbatched camera."""
        return round(float(self.size[..., 1]))

    def K(self) -> np.ndarray:
        """Intrinsic matrix (3, 3) of an unbatched camera."""
        (fx, fy), (cx, cy) = self.focal.tolist(), self.center.tolist()
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def to(self, *args: object, **kwargs: object) -> Camera:
        """Move or convert all tensors, like torch.Tensor.to."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))  # type: ignore[call-overload]

    def scale(self, factor: float | Sequence[float]) -> Camera:
        """Return the camera of the image resized by (sx, sy): c becomes (c + 0.5) * s - 0.5."""
        s = torch.as_tensor(factor, dtype=self.size.dtype, device=self.size.device)
        center = (self.center + 0.5) * s - 0.5
        shutter = self.shutter and self.shutter.scale(s.expand(2)[1])
        return replace(
            self, size=self.size * s, focal=self.focal * s, center=center, shutter=shutter
        )

    def crop(self, left_top: Sequence[float], size: Sequence[float]) -> Camera:
        """Return the camera of a crop of size (width, height) from the pixel left_top (x, y)."""
        shift = torch.as_tensor(left_top, dtype=self.size.dtype, device=self.size.device)
        new_size = torch.as_tensor(size, dtype=self.size.dtype, device=self.size.device)
        shutter = self.shutter and self.shutter.crop(left_top[1])
        return replace(self, size=new_size, center=self.center - shift, shutter=shutter)

    def rolling(self, T_first_last: Matrix, stamp_share: float) -> Camera:
        """Return a camera that moves by T_first_last (4, 4) while its rows are exposed one by one.

        stamp_share: when the image's stamp and pose are taken: 0 at the first row, 1 at the last.
        """
        shutter = RollingShutter.of_motion(T_first_last, self.height, stamp_share)
        return replace(self, shutter=shutter.each(lambda tensor: tensor.to(self.size)))

    def in_image(self, pixels: Tensor) -> Tensor:
        """Return whether pixels (..., N, 2) lie within the centres of the border pixels."""
        return ((pixels >= 0) & (pixels <= self.size[..., None, :] - 1)).all(-1)

    def project(self, points_cam: Tensor) -> tuple[Tensor, Tensor]:
        """Return pixels (..., N, 2) of points (..., N, 3) in metres, and their visibility (..., N).

        Depths below MIN_DEPTH_M are clamped, and not visible; neither are points beyond the
        distortion's range nor, as in the reference implementation, points outside the image. With a
        rolling shutter, points are given in the camera frame at the stamp.
        """
        if self.shutter is not None:
            return self.project_with_jacobian(points_cam)[:2]
        pixels, valid, _ = self._project(points_cam, want_jacobian=False)
        return pixels, valid & self.in_image(pixels)

    def project_with_jacobian(self, points_cam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project, and also return d(pixel)/d(point_cam) (..., N, 2, 3)."""
        if self.shutter is not None:
            pixels, valid, J = self._project_rolling(points_cam, self.shutter)
        else:
            pixels, valid, J = self._project_and_derive(points_cam)
        return pixels, valid & self.in_image(pixels), J

    def _project_rolling(
        self, points_cam: Tensor, shutter: RollingShutter
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project each point to the row that is read when the moving camera sees it there.

        The first guess is the row at the stamp. From the row where the point then appears, one
        Newton step follows. Where a point appears depends on its row, so the derivative has a term
        for the row as well. It neglects the camera's rotation since the stamp, about 0.01 rad.
        """
        height = self.size[..., 1, None]
        guess = self._project(points_cam, want_jacobian=False)[0][..., 1]
        rows = guess.clamp(-height, 2 * height)
        points, velocity = shutter.points_at(points_cam, rows)
        pixels, valid, J = self._project_and_derive(points)
        motion = (J @ velocity[..., None])[..., 0]  # (..., N, 2) pixels per row
        gain = motion / (1 - motion[..., 1:].clamp(max=MAX_ROWS_PER_ROW))
        pixels = pixels + gain * (pixels[..., 1:] - rows[..., None])
        return pixels, valid, J + gain[..., None] * J[..., 1:, :]

    def _project_and_derive(self, points_cam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, valid, J = self._project(points_cam, want_jacobian=True)
        assert J is not None
        return pixels, valid, J

    def _each(self, change: Callable[[Tensor], Tensor]) -> Camera:
        """Return a copy with each tensor changed."""
        changed = (change(getattr(self, name)) for name in TENSORS)
        shutter = self.shutter and self.shutter.each(change)
        return Camera(self.model, *changed, shutter=shutter)

    def _project(
        self, points_cam: Tensor, want_jacobian: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        z = points_cam[..., 2]
        valid = z > MIN_DEPTH_M
        inverse_z = z.clamp(min=MIN_DEPTH_M).reciprocal()[..., None]
        uv = points_cam[..., :2] * inverse_z
        distorted, J_distort = uv, None
        if self.model != "PINHOLE":
            distorted, radius2, J_distort = distort(self.model, self.distortion, uv, want_jacobian)
            valid = valid & (radius2 < self.max_radius2[..., None])
        focal = self.focal[..., None, :]
        pixels = torch.addcmul(self.center[..., None, :], distorted, focal)
        if not want_jacobian:
            return pixels, valid, None
        return pixels, valid, _jacobian_of_projection(focal * inverse_z, uv, J_distort)


def _float64(values: float | Sequence[float] | np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _jacobian_of_projection(scale: Tensor, uv: Tensor, J_distort: Tensor | None) -> Tensor:
    """Return d(pixel)/d(point_cam) (..., 2, 3). scale: focal length over depth (..., 2).

    The product with d(uv)/d(point) = [1 0 -u; 0 1 -v] / z is written out, which is faster.
    """
    if J_distort is None:
        (a, b), (u, v) = scale.unbind(-1), uv.unbind(-1)
        o = torch.zeros_like(a)
        return torch.stack([a, o, -a * u, o, b, -b * v], -1).unflatten(-1, (2, 3))
    J_u, J_v = (scale[..., None] * J_distort).unbind(-1)
    u, v = uv[..., None, :].unbind(-1)
    return torch.stack([J_u, J_v, -(J_u * u + J_v * v)], -1)


def _numbers(what: str, values: object) -> NDArray[np.float64]:
    """Return an array of at least one dimension. Raises CameraError if these are no numbers."""
    try:
        return np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError, OverflowError):
        raise CameraError(f"{what}: expected numbers, got {values!r}") from None


def _check(
    model: str,
    size: Sequence[float],
    focal: Sequence[float],
    center: Sequence[float],
    distortion: Sequence[float],
) -> None:
    if model in ROS_MODELS:
        raise CameraError(
            f"camera model '{model}' is a name of ROS: use Camera.from_ros, or {ROS_MODELS[model]}"
        )
    if model not in COEFFICIENTS:
        known = ", ".join([*COEFFICIENTS, *ROS_MODELS])
        raise CameraError(f"camera model '{model}' is not supported; known are {known}")
    if any(distortion[COEFFICIENTS[model] :]):
        raise CameraError(
            f"camera model {model} has {COEFFICIENTS[model]} distortion coefficients, "
            f"got {len(distortion)} that are not all zero behind them: calibrate without thin "
            "prism and tilt"
        )
    if {np.shape(size), np.shape(focal), np.shape(center)} != {(2,)}:
        raise CameraError("camera needs two numbers each for size, focal length and centre")
    values = [*size, *focal, *center, *distortion[: COEFFICIENTS[model]]]
    if (
        not all(abs(value) < MAX_VALUE for value in values)
        or not 0 < min(size) <= max(size) <= MAX_SIDE_PX
    ):
        raise CameraError(f"camera has a size or parameter that cannot be: {values}")
    if min(focal) < max(size) / MAX_FOCAL_RATIO or max(focal) > max(size) * MAX_FOCAL_RATIO:
        raise CameraError(
            f"camera has focal length {tuple(focal)} for {size[0]:g}x{size[1]:g} pixels: "
            "is it calibrated?"
        )
    if np.abs(center).max() > max(size) * MAX_FOCAL_RATIO:
        raise CameraError(f"camera has principal point {tuple(center)}: is it calibrated?")
    if np.abs([0.0, *distortion]).max() > MAX_COEFFICIENT:
        raise CameraError(f"camera has distortion {list(distortion)}: is it calibrated?")
