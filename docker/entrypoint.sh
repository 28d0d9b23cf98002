#!/usr/bin/env bash
# Sources ROS and the workspace, then runs the given command.
set -e
# shellcheck disable=SC1090
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
export PATH=/ws/venv/bin:$PATH
exec "$@"
