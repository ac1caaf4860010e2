"""Starts the node: ros2 launch tinysaver_ros classify.launch.py bundle:=BUNDLE."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

HERE = Path(get_package_share_directory("tinysaver_ros")) / "config"


def generate_launch_description():
    """Describe one node; it configures and activates itself unless `autostart` is false."""
    large_images = LaunchConfiguration("large_images")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="the bundle's folder or .zip"),
            DeclareLaunchArgument("params", default_value=str(HERE / "classify.yaml")),
            DeclareLaunchArgument(
                "image", default_value="image", description="topic of the images"
            ),
            DeclareLaunchArgument(
                "large_images",
                default_value="false",
                description="64 MB of shared memory for Fast DDS; the camera needs it as well",
            ),
            SetEnvironmentVariable(
                "FASTRTPS_DEFAULT_PROFILES_FILE",
                str(HERE / "large_images.xml"),
                condition=IfCondition(large_images),
            ),
            LifecycleNode(
                package="tinysaver_ros",
                executable="classify",
                name="tinysaver",
                namespace="",
                output="screen",
                parameters=[
                    LaunchConfiguration("params"),
                    {"bundle": LaunchConfiguration("bundle")},
                ],
                remappings=[("image", LaunchConfiguration("image"))],
            ),
        ]
    )
