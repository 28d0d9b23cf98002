"""Baselines, ablations and figures for the lab notes: tested, not installed."""
