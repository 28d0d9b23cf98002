"""One target per boundary."""

from __future__ import annotations

from fuzz import (
    file_targets,
    foreign_targets,
    map_targets,
    message_targets,
    session_targets,
    video_targets,
)

TARGETS = [
    *message_targets.TARGETS,
    *video_targets.TARGETS,
    *session_targets.TARGETS,
    *file_targets.TARGETS,
    *foreign_targets.TARGETS,
    *map_targets.TARGETS,
]
