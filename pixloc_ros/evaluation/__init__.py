"""Trajectories, errors against ground truth, and the report of a run."""
