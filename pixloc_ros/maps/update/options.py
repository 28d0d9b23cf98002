"""How much of a session becomes part of a map."""

from __future__ import annotations

from dataclasses import dataclass

from pixloc_ros.config.node import FRAME_SPACING_M


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """Distances in metres; shares are of the map's observations."""

    frame_spacing_m: float = FRAME_SPACING_M  # between frames that are compared with the map
    keyframe_spacing_m: float = 4.0  # between those of them that are added for another light
    max_growth_share: float = 0.2  # observations of known points that one session adds
    new_points: bool = True  # where the map has none
    new_keyframe_spacing_m: float = 2.0  # between keyframes that are added for new points
    max_new_share: float = 0.5  # observations that these keyframes add
    force: bool = False  # write a version that localizes held queries worse
