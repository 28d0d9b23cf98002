"""Localize for nav2 by camera, as nav2_bringup's localization_launch.py does with AMCL.

ros2 launch pixloc_ros nav2_localization.launch.py pixloc_map:=/maps/campus map:=grid.yaml \
    image_topic:=/front/image_raw camera_info_topic:=/front/camera_info odom_topic:=/odom
ros2 launch nav2_bringup navigation_launch.py params_file:=nav2_params.yaml

nav2's lifecycle manager brings up the localizer and, if a grid is given, the map server. All
arguments of localizer.launch.py are accepted except `map`, which is nav2's grid here.
"""

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from pixloc_ros.ros.launch_arguments import is_true

LOCALIZER = str(Path(__file__).with_name("localizer.launch.py"))
NODE = "pixloc_localizer"
LOADING_S = 60.0  # to read a map, before the lifecycle manager gives up

ARGUMENTS = [
    DeclareLaunchArgument("pixloc_map", description="Folder of the localizer's map."),
    DeclareLaunchArgument(
        "map",
        default_value="",
        description="YAML file of the occupancy grid, for nav2_map_server. Empty: no map server.",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of all nodes, as in nav2."
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", description="Whether to take time from /clock."
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="Whether to bring the nodes up at the start."
    ),
    DeclareLaunchArgument(
        "bond_timeout",
        default_value="4.0",
        description="Seconds without a heartbeat until a node counts as dead; 0.0: never.",
    ),
]


def start(context: LaunchContext) -> list[Action]:
    """Return the localizer, the map server if there is a grid, and their manager."""
    grid = LaunchConfiguration("map").perform(context)
    sim_time = is_true(LaunchConfiguration("use_sim_time").perform(context))
    namespace = LaunchConfiguration("namespace")
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager_localization",
        namespace=namespace,
        output="screen",
        parameters=[
            {
                "use_sim_time": sim_time,
                "autostart": is_true(LaunchConfiguration("autostart").perform(context)),
                "bond_timeout": float(LaunchConfiguration("bond_timeout").perform(context)),
                "service_timeout": LOADING_S,
                "node_names": [*(["map_server"] if grid else []), NODE],
            }
        ],
    )
    map_server = Node(
        package="nav2_map_server",
        executable="map_server",
        name="map_server",
        namespace=namespace,
        output="screen",
        parameters=[{"use_sim_time": sim_time, "yaml_filename": grid}],
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
    )
    localizer = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(LOCALIZER),
        launch_arguments={
            "map": LaunchConfiguration("pixloc_map"),
            "managed": "true",
            "private_tf": "true",  # in its namespace, like nav2's own nodes
        }.items(),
    )
    return [*([map_server] if grid else []), manager, localizer]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
