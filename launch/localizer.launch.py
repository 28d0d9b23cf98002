"""Start the localizer, on live topics or on a bag.

ros2 launch pixloc_ros localizer.launch.py map:=/maps/campus image_topic:=/front/image_raw \
    camera_info_topic:=/front/camera_info odom_topic:=/odometry/filtered
ros2 launch pixloc_ros localizer.launch.py map:=/maps/campus bag:=drive.mcap output:=drive_run

With a bag, everything runs on the bag's clock; after its end, the folder `output` has the poses, a
summary and a report. `pixloc replay` does the same without ROS, and processes every frame, however
slow the machine is.
"""

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from pixloc_ros.ros import launch_arguments

NODE = "pixloc_localizer"
RVIZ_LAYOUT = PathJoinSubstitution([FindPackageShare("pixloc_ros"), "config", "pixloc.rviz"])
DEFAULT_PARAMS = PathJoinSubstitution([FindPackageShare("pixloc_ros"), "config", "localizer.yaml"])
LAST_FRAME_S = 2.0  # for the localizer to finish its last frame when the bag ends
LAST_LINES_S = 1.0  # for the output of a program that has ended to arrive
LOADING_S = 300  # at most, until the localizer listens to the bag
REPORT_S = 120  # at most, to write the report

ARGUMENTS = [
    DeclareLaunchArgument(
        "map", default_value="", description="Map folder. Empty: the one in params_file."
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=DEFAULT_PARAMS,
        description="YAML file with the node's parameters.",
    ),
    DeclareLaunchArgument(
        "image_topic",
        default_value="image",
        description="Topic of the images, sensor_msgs/Image; compressed images are expected on "
        "<image_topic>/compressed, video there or on <image_topic>/ffmpeg or /foxglove.",
    ),
    DeclareLaunchArgument(
        "camera_info_topic",
        default_value="camera_info",
        description="Topic of the calibration, sensor_msgs/CameraInfo.",
    ),
    DeclareLaunchArgument(
        "camera_info_url",
        default_value="",
        description="Calibration file instead of that topic, as camera_calibration writes it: a "
        "path, file:// or package:// URL. Empty: the one in params_file, if any.",
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Names of a rig's cameras, separated by commas: front,left subscribes to "
        "front/image, left/image and so on. Empty: one camera.",
    ),
    DeclareLaunchArgument(
        "odom_topic", default_value="odom", description="Topic of the odometry, nav_msgs/Odometry."
    ),
    DeclareLaunchArgument(
        "gnss_topic",
        default_value="gnss/fix",
        description="Topic of GNSS fixes, sensor_msgs/NavSatFix.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Device to compute on: cpu, cuda or cuda:N. Empty: the one in params_file.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        description="Whether to take time from /clock, as with a bag or a simulator.",
    ),
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of the node and of its relative topics.",
    ),
    DeclareLaunchArgument(
        "private_tf",
        default_value="false",
        description="Whether /tf and /tf_static are in the namespace, for several robots "
        "in one ROS domain.",
    ),
    DeclareLaunchArgument(
        "managed",
        default_value="false",
        description="Whether a nav2 lifecycle manager brings the node up, with a bond.",
    ),
    DeclareLaunchArgument(
        "rviz",
        default_value="false",
        description="Whether to open RViz with this package's layout.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        description="Lowest severity that is logged: debug, info, warn, error or fatal.",
    ),
    DeclareLaunchArgument(
        "bag",
        default_value="",
        description="A rosbag2 to play; poses are recorded, and compared with the ground truth "
        "if it is known.",
    ),
    DeclareLaunchArgument(
        "rate",
        default_value="1.0",
        description="Playback speed of the bag; 1.0 is the speed of recording.",
    ),
    DeclareLaunchArgument(
        "loop",
        default_value="false",
        description="Whether the bag is repeated until interrupted.",
    ),
    DeclareLaunchArgument(
        "record",
        default_value="false",
        description="Whether poses are recorded and reported even if no bag is played.",
    ),
    DeclareLaunchArgument(
        "output",
        default_value="localizer_run",
        description="Folder for recorded poses, figures and the report.",
    ),
]


def given(context: LaunchContext, name: str) -> str:
    """Return the value of an argument."""
    return str(LaunchConfiguration(name).perform(context))


def is_true(context: LaunchContext, name: str) -> bool:
    """Return whether an argument means true."""
    return launch_arguments.is_true(given(context, name))


def full_name(context: LaunchContext) -> str:
    """Return the localizer's full name, with its namespace."""
    namespace = given(context, "namespace").strip("/")
    return f"/{namespace}/{NODE}" if namespace else f"/{NODE}"


def uses_sim_time(context: LaunchContext) -> bool:
    """Return whether time comes from /clock, as it does with a bag."""
    return bool(given(context, "bag")) or is_true(context, "use_sim_time")


def private_tf(context: LaunchContext) -> list[tuple[str, str]]:
    """Return remappings of /tf and /tf_static into the namespace, if they are private to it."""
    if not is_true(context, "private_tf"):
        return []
    space = full_name(context).removesuffix(f"/{NODE}")
    return [("/tf", f"{space}/tf"), ("/tf_static", f"{space}/tf_static")]


def localizer(context: LaunchContext) -> Node:
    """Return the node; arguments override the parameter file."""
    overrides: dict[str, ParameterValue | bool] = {
        parameter: ParameterValue(value, value_type=str)
        for name, parameter in launch_arguments.SETTINGS.items()
        if (value := given(context, name))
    }
    if is_true(context, "managed"):
        overrides |= {"node.autostart": False, "node.bond": True}
    return Node(
        package="pixloc_ros",
        executable="localizer_node",
        name=NODE,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {"use_sim_time": uses_sim_time(context), **overrides},
        ],
        remappings=[
            ("image", LaunchConfiguration("image_topic")),
            ("camera_info", LaunchConfiguration("camera_info_topic")),
            ("odom", LaunchConfiguration("odom_topic")),
            ("gnss/fix", LaunchConfiguration("gnss_topic")),
            *private_tf(context),
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
    )


def playback(context: LaunchContext) -> list[Action]:
    """Return the bag player, and what ends the launch after its last message."""
    bag = given(context, "bag")
    options = ["--clock", "--rate", given(context, "rate"), "--timeout", str(LOADING_S)]
    options += ["--localizer", full_name(context)]
    options += ["--loop"] if is_true(context, "loop") else []
    player = Node(
        package="pixloc_ros",
        executable="bag_player",
        output="screen",
        arguments=[bag, *options],
        remappings=private_tf(context),
    )
    stop = TimerAction(
        period=LAST_FRAME_S, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))]
    )
    return [
        player,
        RegisterEventHandler(
            OnProcessExit(target_action=player, on_exit=lambda event, now: ended(event, now, stop))
        ),
    ]


def recorder(context: LaunchContext) -> Node:
    """Return the recorder, which reports at the end, with errors if the bag has ground truth."""
    bag = given(context, "bag")
    recording = [given(context, "output"), "--node", full_name(context), "--report"]
    return Node(
        package="pixloc_ros",
        executable="recorder",
        output="screen",
        arguments=[*recording, *([bag] if bag else [])],
        sigterm_timeout=str(REPORT_S),
    )


def ended(event: ProcessExited, context: LaunchContext, stop: Action) -> Action:
    """End the launch after the player's end; as a failure if the player failed."""
    if event.returncode and not context.is_shutdown:
        return TimerAction(period=LAST_LINES_S, actions=[OpaqueFunction(function=fail)])
    return stop


def fail(context: LaunchContext) -> None:
    """End the launch as a failure."""
    raise RuntimeError("the bag could not be played: see the line of bag_player above")


def rviz(context: LaunchContext) -> Node:
    """Return RViz in the node's namespace, to which the layout's topics are relative."""
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", RVIZ_LAYOUT],
        parameters=[{"use_sim_time": uses_sim_time(context)}],
        remappings=private_tf(context),
    )


def start(context: LaunchContext) -> list[Action]:
    """Return everything that the arguments request."""
    launch_arguments.check({each.name: given(context, each.name) for each in ARGUMENTS})
    actions: list[Action] = [localizer(context)]
    if given(context, "bag") or is_true(context, "record"):
        actions.append(recorder(context))
    if given(context, "bag"):
        actions += playback(context)
    if is_true(context, "rviz"):
        actions.append(rviz(context))
    return actions


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
