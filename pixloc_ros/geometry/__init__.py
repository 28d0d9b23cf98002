"""Poses, cameras and covariances. Imports nothing else of the package."""
