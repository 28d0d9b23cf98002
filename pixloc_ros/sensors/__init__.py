"""Convert messages to typed events, for the live node and for bags. Knows nothing of ROS."""
