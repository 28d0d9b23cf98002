"""For pip, without ROS; everything is in pyproject.toml. colcon uses CMakeLists.txt instead."""

from setuptools import setup

setup()
