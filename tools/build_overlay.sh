#!/usr/bin/env bash
# Builds pixloc_ros, and tf2_msgs if the wheels lack it, into build/ros/install with colcon.
# Called by `make setup`; repeating it takes seconds. The result is used through tools/ros_env.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
workspace=$root/build/ros

# CMake refuses a package whose numpy lies below its source folder, as it does in .venv: so the
# package is built from a folder of links.
link_package() {
    local source=$workspace/src/pixloc_ros
    mkdir -p "$source"
    for name in CMakeLists.txt package.xml msg srv launch config pixloc_ros; do
        ln -sfn "$root/$name" "$source/$name"
    done
}

# One message of a package that the wheels lack, with the name and definition of the real one.
# usage: write_message PACKAGE/NAME VERSION DEPENDENCY DEFINITION
write_message() {
    local package=${1%/*} name=${1#*/} version=$2 dependency=$3 definition=$4
    local source=$workspace/src/$package
    [ -d "$venv/share/$package" ] || [ -d "$source" ] && return
    mkdir -p "$source/msg"
    echo "$definition" >"$source/msg/$name.msg"
    cat >"$source/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.18)
project($package)
find_package(ament_cmake REQUIRED)
find_package($dependency REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces($package msg/$name.msg DEPENDENCIES $dependency)
ament_export_dependencies(rosidl_default_runtime)
ament_package()
EOF
    cat >"$source/package.xml" <<EOF
<?xml version="1.0"?>
<package format="3">
  <name>$package</name>
  <version>$version</version>
  <description>$name for ROS from PyPI, which lacks $package.</description>
  <maintainer email="maintainers@pixloc-ros.example">pixloc_ros maintainers</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend>
  <depend>$dependency</depend>
  <exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export>
    <build_type>ament_cmake</build_type>
  </export>
</package>
EOF
}

mkdir -p "$workspace"
exec 9>"$workspace/.lock"
flock 9  # two shells may run `make test` at once

"$venv/bin/python" "$root/tools/patch_ros_wheels.py"
link_package
write_message tf2_msgs/TFMessage 0.36.0 geometry_msgs 'geometry_msgs/TransformStamped[] transforms'
write_message ffmpeg_image_transport_msgs/FFMPEGPacket 2.0.1 std_msgs 'std_msgs/Header header
int32 width
int32 height
string encoding      # the codec, and behind semicolons formats of pixels
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data'
write_message foxglove_msgs/CompressedVideo 3.2.3 builtin_interfaces 'builtin_interfaces/Time timestamp
string frame_id
uint8[] data
string format'
write_message bond/Status 4.1.2 std_msgs 'std_msgs/Header header
string id           # of the bond
string instance_id  # of one of its two ends
bool active
float32 heartbeat_timeout
float32 heartbeat_period'

cd "$workspace"
PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PYTHONPATH='' \
    colcon --log-level error build --merge-install --symlink-install --event-handlers console_direct- \
    --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" -DBUILD_TESTING=OFF
