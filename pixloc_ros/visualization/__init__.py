"""Pictures of what the localizer sees. Uses only OpenCV, so that a robot can draw them, too."""
