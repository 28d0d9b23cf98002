"""Formats of others: COLMAP models, point clouds, meshes."""
