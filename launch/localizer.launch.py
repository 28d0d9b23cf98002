"""Start the localizer on live topics.

ros2 launch pixloc_ros localizer.launch.py map:=/maps/campus image_topic:=/front/image_raw \
    camera_info_topic:=/front/camera_info odom_topic:=/odometry/filtered
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

RVIZ_LAYOUT = PathJoinSubstitution([FindPackageShare("pixloc_ros"), "config", "pixloc.rviz"])
DEFAULT_PARAMS = PathJoinSubstitution([FindPackageShare("pixloc_ros"), "config", "localizer.yaml"])

ARGUMENTS = [
    DeclareLaunchArgument(
        "map", default_value="", description="folder of the map; empty: as in params_file"
    ),
    DeclareLaunchArgument(
        "params_file", default_value=DEFAULT_PARAMS, description="YAML file of node parameters"
    ),
    DeclareLaunchArgument(
        "image_topic",
        default_value="image",
        description="sensor_msgs/Image; CompressedImage is expected at <image_topic>/compressed",
    ),
    DeclareLaunchArgument(
        "camera_info_topic", default_value="camera_info", description="sensor_msgs/CameraInfo"
    ),
    DeclareLaunchArgument("odom_topic", default_value="odom", description="nav_msgs/Odometry"),
    DeclareLaunchArgument(
        "gnss_topic", default_value="gnss/fix", description="sensor_msgs/NavSatFix"
    ),
    DeclareLaunchArgument(
        "device", default_value="", description="cpu, cuda or cuda:N; empty: as in params_file"
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", description="take the time from /clock"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
    DeclareLaunchArgument(
        "rviz", default_value="false", description="open RViz with the layout for no namespace"
    ),
    DeclareLaunchArgument(
        "log_level", default_value="info", description="debug, info, warn, error or fatal"
    ),
]


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with the arguments that were given laid over the parameter file."""
    overrides = {
        name: ParameterValue(value, value_type=str)
        for name in ("map", "device")
        if (value := LaunchConfiguration(name).perform(context))
    }
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    image_topic = LaunchConfiguration("image_topic")
    return [
        Node(
            package="pixloc_ros",
            executable="localizer_node",
            name="pixloc_localizer",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[
                LaunchConfiguration("params_file"),
                {"use_sim_time": use_sim_time, **overrides},
            ],
            remappings=[
                ("image", image_topic),
                ("image/compressed", [image_topic, "/compressed"]),
                ("camera_info", LaunchConfiguration("camera_info_topic")),
                ("odom", LaunchConfiguration("odom_topic")),
                ("gnss/fix", LaunchConfiguration("gnss_topic")),
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    rviz = ExecuteProcess(
        cmd=["rviz2", "-d", RVIZ_LAYOUT], condition=IfCondition(LaunchConfiguration("rviz"))
    )
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start_node), rviz])
