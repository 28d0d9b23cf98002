"""Messages as typed events, shared by the live node and bags. Knows nothing of ROS."""
