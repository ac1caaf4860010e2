"""Runs the node until it is told to stop.

    ros2 run tinysaver_ros classify --ros-args -p bundle:=BUNDLE

SIGTERM and Ctrl-C end it with 0, at any moment. rclpy's own handlers shut the context down under
whatever is using it, hence none of them: a signal sets a flag, and the loop below sees it.
"""

import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

LOOK_S = 0.1
"""How often the loop looks whether it shall stop."""


def main(args: Sequence[str] | None = None) -> int:
    """Spin the node; return 0 when told to stop, 1 when it failed, 2 when it could not start."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # Not before: importing them takes a while, in which a signal may come.
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from tinysaver_ros.node import Classifier

    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of rclpy's own, which it does not export
        print(f"tinysaver_ros: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    node = Classifier()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not stopping.is_set() and not node.started():
            return 0 if stopping.is_set() else 2
        while not stopping.is_set() and node.failure is None:
            executor.spin_once(timeout_sec=LOOK_S)
        return 0 if stopping.is_set() else 1
    except ExternalShutdownException:
        return 0
    finally:
        node.let_go()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
