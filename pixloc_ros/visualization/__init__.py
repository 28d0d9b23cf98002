"""Pictures of what the localizer saw. OpenCV only, so that the robot can draw them too."""
