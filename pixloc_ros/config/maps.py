"""What of a map is kept in memory, aligned against, and searched."""

from __future__ import annotations

from pydantic import Field

from pixloc_ros.config.section import Section

# Keyframes whose points are considered for a provisional view.
PROVISIONAL_KEYFRAMES = 10


class ViewConfig(Section):
    """Which part of the map a frame is aligned with."""

    keyframes: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of keyframes whose points are considered; they are near the prior and "
        "share points. More keyframes offer more points to choose from and take longer.",
    )
    max_points: int = Field(
        default=1500,
        ge=16,
        le=1_000_000,
        description="Maximum number of map points that a frame is aligned with. More points are "
        "more accurate; time grows in proportion.",
    )
    observations: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Maximum number of keyframes that a point is compared with; those that "
        "observed it from a view most similar to the prior's come first. More take longer; the "
        "published method compares with all.",
    )
    refinement_observations: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="An accepted pose is refined by one step on the fine level, for which a point "
        "is compared with up to this many keyframes (or `observations`, if that is more). Which "
        "poses are accepted does not depend on it. 0: no refinement.",
    )
    max_refinement_ratio: float = Field(
        default=3.0,
        ge=1.0,
        le=1e6,
        description="A further keyframe takes part in the refinement of a point only if its change "
        "of viewpoint is at most this many times that of the first one. Larger refines better on "
        "maps with dense keyframes, and worse on those with sparse ones.",
    )
    min_points: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="A camera with fewer map points in view than this is left out; if no camera is "
        "left, the frame fails with too_few_points.",
    )
    max_viewpoint_change: float = Field(
        default=0.4,
        ge=1e-3,
        le=10.0,
        description="A point is used if the prior views it much as its keyframe did: the angle "
        "between the two rays in rad, plus the absolute logarithm of the change of scale, must be "
        "at most this. Larger keeps more points, which match less well.",
    )
    max_initial_viewpoint_change: float = Field(
        default=0.8,
        ge=1e-3,
        le=10.0,
        description="The same limit for a provisional view, which replaces one with fewer than "
        "min_points points and considers up to 10 keyframes. The resulting pose must have enough "
        "points within max_viewpoint_change, and is aligned again with those.",
    )
    cull_hidden: bool = Field(
        default=True,
        description="Leave out points that are hidden from the prior by the surfaces of the "
        "keyframes. Only maps of clouds, meshes and depth images have surfaces.",
    )
    max_distance_m: float = Field(
        default=30.0,
        ge=0.1,
        le=1e5,
        description="A prior farther than this from every keyframe, in metres, is outside the map: "
        "the frame fails with out_of_map.",
    )
    condition_radius_m: float = Field(
        default=10.0,
        ge=0.1,
        le=1e5,
        description="Only for updated maps: the most similar keyframe within this distance of the "
        "prior, in metres, decides under which light condition points are compared.",
    )
    extra_view_spacing_m: float = Field(
        default=5.0,
        ge=0.1,
        le=1e5,
        description="If the prior is vague, further views of the map are chosen along it, at least "
        "this far apart, in metres. Smaller localizes more frames and takes longer.",
    )
    max_extra_views: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Maximum number of these further views, besides the one at the prior.",
    )
    reselect_distance_m: float = Field(
        default=0.5,
        ge=0.0,
        le=1e5,
        description="If alignment moved the pose by more than this, in metres, points are selected "
        "again and the frame is aligned once more. Larger saves time and costs accuracy.",
    )
    reselect_angle_deg: float = Field(
        default=2.0,
        ge=0.0,
        le=180.0,
        description="If alignment turned the pose by more than this, in degrees, points are "
        "selected again and the frame is aligned once more.",
    )

    def provisional(self) -> ViewConfig:
        """The settings of a provisional view."""
        change = max(self.max_viewpoint_change, self.max_initial_viewpoint_change)
        keyframes = max(self.keyframes, PROVISIONAL_KEYFRAMES)
        return self.model_copy(update={"max_viewpoint_change": change, "keyframes": keyframes})


class TilesConfig(Section):
    """Which tiles of the map are kept in the device's memory."""

    budget_mb: float = Field(
        default=2000.0,
        ge=0.0,
        le=1e7,
        description="Memory for open tiles of the map in MB. Beyond it, the tiles that were not "
        "used for the longest time are closed; those of the current view stay open whatever their "
        "size.",
    )
    prefetch_m: float = Field(
        default=150.0,
        ge=0.0,
        le=1e5,
        description="Tiles nearer to the vehicle than this, in metres, are opened in the "
        "background before they are needed.",
    )
    fetch_ahead_m: float = Field(
        default=1000.0,
        ge=0.0,
        le=1e6,
        description="For a map behind a URL: tiles nearer to the vehicle than this, in metres, are "
        "fetched into the cache on disk before they are needed, those ahead of the vehicle first.",
    )
    fetch_retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="For a map behind a URL: number of retries of a failed download where a "
        "program waits for the file: when a map is opened, in a replay and in pixloc map fetch. "
        "The node does not wait, and keeps trying to fetch the tiles that it needs.",
    )
    fetch_retry_s: float = Field(
        default=1.0,
        ge=0.01,
        le=60.0,
        description="For a map behind a URL: pause before the first retry, in seconds. It doubles "
        "with each failure, up to a minute.",
    )
    cache_folder: str = Field(
        default="",
        description="Folder of the cache on disk for maps behind a URL; several processes may "
        "share it. Empty: pixloc/tiles below $XDG_CACHE_HOME, or ~/.cache.",
    )
    cache_mb: float = Field(
        default=10_000.0,
        ge=1.0,
        le=1e9,
        description="Size of that cache in MB. Beyond it, the files that were not used for the "
        "longest time are removed.",
    )


class RetrievalConfig(Section):
    """Where to search for a frame without a prior: at keyframes that resemble it."""

    enabled: bool = Field(
        default=True,
        description="Search the whole map for a frame if neither odometry nor GNSS nor an initial "
        "pose tells where it is.",
    )
    candidates: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Number of keyframes most similar to the frame, which are grouped into places.",
    )
    places: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Number of these places that are tried. More localize more frames and take "
        "longer.",
    )
    same_place_m: float = Field(
        default=15.0,
        ge=0.0,
        le=1e5,
        description="Keyframes nearer to each other than this, in metres, are one place.",
    )
    sigma_m: float = Field(
        default=1.5,
        ge=1e-3,
        le=1e4,
        description="Standard deviation per axis, in metres, of the vehicle's position across the "
        "keyframes' path; along the path, their spacing is added.",
    )
    sigma_deg: float = Field(
        default=3.0,
        ge=1e-3,
        le=180.0,
        description="Standard deviation per axis, in degrees, of the vehicle's attitude relative "
        "to the keyframes'.",
    )
