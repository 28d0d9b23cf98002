"""Arrange the contents of a recording in the rerun viewer."""

from __future__ import annotations

from typing import Any

TIMELINE = "stamp"
EYE_M = (-9.0, 4.0, 6.0)  # in the vehicle's frame: behind, left, above
TARGET_M = (8.0, 0.0, 0.5)
GRID_M = 10.0
GRID_COLOR = (45, 45, 50)


def layout(blueprint: Any) -> Any:
    """Return the blueprint: the drive on the map, the camera, figures, and verdicts over time.

    blueprint: the module `rerun.blueprint`.
    """
    camera = blueprint.Spatial2DView(origin="camera/image", name="Camera and aligned points")
    evidence = blueprint.TimeSeriesView(
        origin="figures/evidence",
        name="Evidence",
        axis_y=blueprint.ScalarAxis(range=(0.0, 1.0)),
    )
    metres = blueprint.TimeSeriesView(origin="figures/metres", name="Error and sigma in metres")
    verdict = blueprint.StateTimelineView(origin="verdict", name="Verdict")
    words = blueprint.TextLogView(
        origin="verdict",
        name="Verdict in words",
        columns=blueprint.TextLogColumns(text_log_columns=["LogLevel", "Body"]),
    )
    return blueprint.Blueprint(
        blueprint.Vertical(
            blueprint.Horizontal(
                _drive(blueprint),
                blueprint.Vertical(camera, evidence, metres, row_shares=[4, 3, 3]),
                column_shares=[3, 2],
            ),
            blueprint.Horizontal(verdict, words, column_shares=[3, 2]),
            row_shares=[5, 1],
        ),
        blueprint.TimePanel(state="collapsed", timeline=TIMELINE),
        collapse_panels=True,
    )


def _drive(blueprint: Any) -> Any:
    """Arrange two tabs: the drive as seen from behind the vehicle, and on the whole map."""
    contents = ["+ /**", "- /camera/image/points/**", "- /verdict/**", "- /figures/**"]
    # A view whose origin is the vehicle moves with it.
    behind = blueprint.Spatial3DView(
        origin="vehicle",
        name="Behind the vehicle",
        line_grid=False,
        eye_controls=blueprint.EyeControls3D(position=EYE_M, look_target=TARGET_M),
        contents=contents,
    )
    grid = blueprint.LineGrid3D(spacing=GRID_M, color=GRID_COLOR)
    whole = blueprint.Spatial3DView(origin="/", name="Whole map", line_grid=grid, contents=contents)
    return blueprint.Tabs(behind, whole)
