"""What it means that a prior was refused, for people. Codes that say it themselves are not here."""

WORDS = {
    "gnss_beyond_the_crs": "fixes lie outside of the map's projected frame",
    "gnss_jump": "fixes jump farther than priors.odometry_max_speed_mps allows",
    "gnss_no_fix": "the receiver had no fix",
    "gnss_stale": "fixes were older than priors.gnss_max_age_s when an image needed them",
    "gnss_too_vague": "the sigma of fixes is above priors.gnss_max_sigma_m",
    "gnss_without_datum": "the map has no datum, by which fixes are placed: build it with --datum",
    "odometry_gap": "odometry paused for longer than priors.odometry_max_gap_s",
    "odometry_jump": "odometry jumps farther than priors.odometry_max_speed_mps allows",
    "odometry_restarted": "odometry went on from another place",
}
