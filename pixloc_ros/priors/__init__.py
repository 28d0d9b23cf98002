"""Turn odometry, GNSS and initial poses into one prior per frame. Knows nothing of ROS."""
