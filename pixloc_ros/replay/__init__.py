"""Bags and image lists: write them with simulated sensors, read them, localize them."""
