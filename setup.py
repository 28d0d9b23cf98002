"""For pip, without ROS; everything is in pyproject.toml. colcon builds with CMakeLists.txt instead."""

from setuptools import setup

setup()
