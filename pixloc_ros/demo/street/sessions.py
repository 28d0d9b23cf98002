"""Conditions of a drive along the street: light, weather, changes since mapping, and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixloc_ros.demo.street.lens import StreetLens
from pixloc_ros.demo.street.sky import Sky
from pixloc_ros.demo.street.surfaces import Floats, Image, Light
from pixloc_ros.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Exposure:
    """How the camera records light: gain, gamma, white balance (RGB), noise in grey levels."""

    gain: float
    gamma: float
    white_balance: tuple[float, float, float]
    noise: float

    def apply(self, image_rgb: Image, rng: np.random.Generator) -> Image:
        """Return the picture (H, W, 3) as this camera records it."""
        levels = np.arange(256)[:, None] / 255.0
        table = self.gain * levels**self.gamma * self.white_balance * 255.0
        developed: Floats = cv2.LUT(image_rgb, np.clip(table, 0, 255).astype(np.float32)[:, None])
        developed += self.noise * rng.standard_normal(image_rgb.shape, dtype=np.float32)
        return np.clip(np.round(developed), 0, 255).astype(np.uint8)


_LATER = Light(to_sun=(-0.60, 0.36, 0.714))
_CLEAR = Sky()
_OTHER_EXPOSURE = Exposure(0.90, 1.12, (1.05, 1.0, 0.90), 2.0)


@dataclass(frozen=True, slots=True)
class StreetSession:
    """One drive along the street. Shares are 0..1, of all cars, all houses and so on."""

    light: Light = _LATER
    sky: Sky = _CLEAR
    exposure: Exposure = _OTHER_EXPOSURE
    lens: StreetLens | None = None  # None: the mapping drive's
    moved_cars: float = 0.34
    repainted: float = 0.0  # of the houses
    scaffolded: float = 0.0  # of the houses
    rebuilt: float = 0.0  # of the houses: others stand in their places
    people_per_100m: float = 0.0
    leaves: bool = True
    snow: bool = False
    wet: bool = False
    lamps: bool = False  # street lamps and headlights are on, and some windows lit


_FOG_GREY = Sky(haze=(0.80, 0.82, 0.84), zenith=(0.66, 0.69, 0.73), cloud=(0.74, 0.76, 0.79))
_CLOUDED = Light(sun=(0.0, 0.0, 0.0), sky=(1.00, 1.03, 1.08))
_NIGHT_SKY = Sky((0.055, 0.050, 0.055), (0.012, 0.014, 0.025), (0.06, 0.055, 0.05), (0.02,) * 3)

SESSIONS: dict[str, StreetSession] = {
    "mapping": StreetSession(Light(), exposure=Exposure(1.0, 1.0, (1.0,) * 3, 1.0), moved_cars=0.0),
    "later": StreetSession(),
    "night": StreetSession(
        Light(sun=(0.0, 0.0, 0.0), sky=(1.0, 1.0, 1.0), lit_windows=0.4),
        _NIGHT_SKY,
        Exposure(1.25, 0.80, (1.05, 1.0, 0.95), 6.0),
        lamps=True,
    ),
    "low_sun": StreetSession(
        Light(to_sun=(-0.93, 0.30, 0.21), sky=(0.44, 0.50, 0.66), sun=(1.95, 1.25, 0.62)),
        Sky(haze=(1.0, 0.82, 0.58), zenith=(0.42, 0.55, 0.78)),
    ),
    "overcast": StreetSession(_CLOUDED, _FOG_GREY),
    "wet": StreetSession(
        Light(sun=(0.0, 0.0, 0.0), sky=(0.80, 0.84, 0.90)),
        _FOG_GREY,
        Exposure(0.95, 1.0, (0.97, 1.0, 1.04), 2.5),
        wet=True,
    ),
    "snow": StreetSession(_CLOUDED, _FOG_GREY, leaves=False, snow=True),
    "bare_trees": StreetSession(Light(to_sun=(-0.55, 0.60, 0.58)), leaves=False, moved_cars=0.6),
    "busy": StreetSession(moved_cars=1.0, people_per_100m=50.0, scaffolded=0.2),
    "repainted": StreetSession(moved_cars=1.0, repainted=0.35),
    "rebuilt": StreetSession(moved_cars=1.0, rebuilt=0.5),
    "other_camera": StreetSession(
        exposure=Exposure(1.15, 0.85, (0.92, 1.0, 1.10), 4.0),
        lens=StreetLens(960, 540, focal_share=0.82, readout_s=0.02),
    ),
}


def find_session(name: str) -> StreetSession:
    """Return the session of this name. Raises ConfigError for an unknown one."""
    if name not in SESSIONS:
        raise ConfigError(f"unknown session '{name}'; choose from {', '.join(SESSIONS)}")
    return SESSIONS[name]
