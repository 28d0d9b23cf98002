"""Tables that describe a map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Column, Table

from pixloc_ros.common.foreign_files import is_url
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import SessionEntry


def map_table(map_: Map, folder: str | Path) -> Table:
    """Describe content, origin and size of the map in `folder`."""
    table = Table("", Column(overflow="fold"), title=str(folder), show_header=False)
    for name, value in {**_describe_content(map_, folder), **_describe_origin(map_)}.items():
        table.add_row(name, value)
    return table


def _describe_content(map_: Map, folder: str | Path) -> dict[str, str]:
    n_keyframes, n_points = len(map_.keyframe_names), map_.point_count
    size_bytes, stored = _describe_size(map_, folder)
    low, high = (f(map_.keyframe_T_map_cam[:, :3, 3], axis=0) for f in (np.min, np.max))
    spans = (f"{axis} {a:.1f}..{b:.1f}" for axis, a, b in zip("xyz", low, high, strict=True))
    return {
        "keyframes": f"{n_keyframes}, {map_.metadata.observations / n_keyframes:.0f} points each",
        "keyframes span": f"{', '.join(spans)} m",
        "points": f"{n_points}",
        "feature rows": f"{sum(t.rows for t in map_.metadata.tiles)} "
        f"({map_.metadata.storage}, {map_.metadata.row_type})",
        "tiles": _describe_tiles(map_),
        stored: f"{size_bytes / 1e6:.1f} MB, {size_bytes / n_points:.0f} bytes per point",
    }


def _describe_size(map_: Map, folder: str | Path) -> tuple[int, str]:
    """Return bytes, and what they are the size of: behind a URL only the tiles' sizes are known."""
    if is_url(folder):
        return sum(tile.bytes for tile in map_.metadata.tiles), "size of tiles"
    return sum(file.stat().st_size for file in Path(folder).expanduser().iterdir()), "on disk"


def _describe_tiles(map_: Map) -> str:
    side_m, tiles = map_.metadata.tile_m, map_.metadata.tiles
    copies = sum(tile.points for tile in tiles) / max(map_.point_count, 1) - 1
    squares = f" of {side_m:g} m, {copies:.0%} of the points in more than one" * (len(tiles) > 1)
    refused = "".join(f"; refused: {why}" for why in map_.tiles.refused.values())
    return f"{len(tiles)}{squares}{refused}"


def _describe_origin(map_: Map) -> dict[str, str]:
    metadata = map_.metadata
    return {
        "axes": f"{metadata.axes}, frame {metadata.frame}",
        "datum": str(map_.datum or "none: GNSS fixes cannot be used"),
        "camera mount": "unknown" if map_.T_base_cam is None else "known",
        "cameras": ", ".join(f"{c.model} {c.width}x{c.height}" for c in map_.cameras),
        "network": f"{map_.model_id} ({map_.weights_sha256[:12]}), {metadata.max_side_px} px",
        "schema version": f"{metadata.schema_version}",
        "SHA-256": map_.sha256,
    }


def history_table(history: Sequence[SessionEntry]) -> Table:
    """List the drives that a map was updated with, oldest first."""
    columns = ("drive", "date", "frames", "keyframes", "observations", "points added", "retired")
    table = Table(*columns, title="history" if history else "never updated")
    for entry in history:
        counts = (entry.frames, entry.keyframes, entry.observations)
        points = (entry.points_added, entry.points_retired)
        table.add_row(entry.name, entry.date, *(str(count) for count in (*counts, *points)))
    return table
