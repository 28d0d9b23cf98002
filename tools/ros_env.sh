# shellcheck shell=bash
# Source this in bash to use ROS 2 from the wheels in .venv, our messages and tf2_msgs:
#     . tools/ros_env.sh
# `make setup` must have run. On a machine with ROS from apt, source the colcon workspace instead.
#
# The sources come before the overlay on PYTHONPATH, so edits and new modules take effect at once; the
# overlay adds pixloc_ros.msg to them (see pixloc_ros/__init__.py). Rebuild it after editing msg/.
# Nothing leaves this machine, and every shell has its own domain, from 1 to 50, unless ROS_DOMAIN_ID is
# set. The tests take theirs from 51 on, so that they never hear a demo or a node of another shell.

_pixloc_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_pixloc_overlay=$_pixloc_root/build/ros/install
export VIRTUAL_ENV=$_pixloc_root/.venv
_pixloc_site=$("$VIRTUAL_ENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
_pixloc_libs=$(printf '%s:' "$_pixloc_site"/ros_*.libs)

export PATH=$VIRTUAL_ENV/bin:$PATH
export PYTHONPATH=$_pixloc_root:$_pixloc_overlay/${_pixloc_site#"$VIRTUAL_ENV"/}${PYTHONPATH:+:$PYTHONPATH}
export LD_LIBRARY_PATH=$_pixloc_overlay/lib:$VIRTUAL_ENV/lib:$_pixloc_libs${LD_LIBRARY_PATH:-}
export AMENT_PREFIX_PATH=$_pixloc_overlay:$VIRTUAL_ENV
export ROS_DISTRO=jazzy
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-$((RANDOM % 50 + 1))}
# The wheels start Python a second time to set LD_LIBRARY_PATH; it is set, so once is enough.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1

unset _pixloc_root _pixloc_overlay _pixloc_site _pixloc_libs
