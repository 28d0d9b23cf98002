"""From a recorded drive to a model: keyframes, trajectory, matches, adjustment, gates, report."""
