"""Poses, cameras and covariances. Depends on nothing else of the package."""
