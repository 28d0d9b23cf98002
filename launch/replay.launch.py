"""Play a bag into the localizer, on the bag's clock; everything stops when the bag ends.

ros2 launch pixloc_ros replay.launch.py bag:=drive.mcap map:=/maps/campus

All arguments of localizer.launch.py work here too. `pixloc replay` does the same without ROS, and
looks at every frame however slow the machine is.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

LOCALIZER = PathJoinSubstitution([FindPackageShare("pixloc_ros"), "launch", "localizer.launch.py"])
LAST_FRAME_S = 2.0  # for the localizer to finish what it has when the bag ends


def generate_launch_description() -> LaunchDescription:
    player = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", LaunchConfiguration("bag")),
            *("--clock", "100"),
            *("--rate", LaunchConfiguration("rate")),
            *("--delay", LaunchConfiguration("delay_s")),
        ],
        output="screen",
    )
    stop = TimerAction(
        period=LAST_FRAME_S, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))]
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 file or folder"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of playing"),
            DeclareLaunchArgument(
                "delay_s", default_value="5.0", description="time for the map to load, s"
            ),
            IncludeLaunchDescription(LOCALIZER, launch_arguments={"use_sim_time": "true"}.items()),
            player,
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[stop])),
        ]
    )
