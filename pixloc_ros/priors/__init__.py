"""From odometry, GNSS and initial poses to one prior per frame. Knows nothing of ROS."""
