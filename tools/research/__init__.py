"""Baselines, ablations and pictures for the lab notes: tested, and not installed."""
