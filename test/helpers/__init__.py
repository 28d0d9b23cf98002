"""Scenes, drives, bags and a live node that several tests use."""
