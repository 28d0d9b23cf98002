"""Bags and image lists: writing them with simulated sensors, reading them, localizing over them."""
