"""A ROS 2 node: images in, classifications out.

    ros2 run … or: python examples/ros2_node.py --ros-args -p bundle:=BUNDLE

Subscribes to `image` (sensor_msgs/Image, bgr8 or rgb8), publishes `classification`
(vision_msgs/Classification). Only the newest image is decided: one that comes while another is on
its way replaces it. What decides is `Classifier`, which knows nothing of ROS and is what the tests
run; the node around it was not run on ROS here.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge import Cascade, Decision, FrameId, TinySaverError

Picture: TypeAlias = NDArray[np.uint8]


def picture_of(
    *, height: int, width: int, step: int, encoding: str, data: bytes | bytearray | memoryview
) -> Picture:
    """Return the picture in a ROS image message, (height, width, 3) BGR uint8.

    Raises ValueError for an encoding other than bgr8 and rgb8.
    """
    if encoding not in ("bgr8", "rgb8"):
        raise ValueError(f"image is {encoding}; expected bgr8 or rgb8")
    rows = np.frombuffer(data, np.uint8).reshape(height, step)
    picture = rows[:, : 3 * width].reshape(height, width, 3)
    return picture if encoding == "bgr8" else np.ascontiguousarray(picture[:, :, ::-1])


class Classifier:
    """Decides the newest picture; the executor's thread never waits for a model."""

    def __init__(
        self,
        cascade: Cascade,
        publish: Callable[[Decision], object],
        *,
        deadline_ms: float,
        failed: Callable[[BaseException], object],
    ) -> None:
        self._cascade, self._publish, self._failed = cascade, publish, failed
        self._deadline_ms = deadline_ms
        self._lock = threading.Lock()
        self._busy = False
        self._next: tuple[Picture, float, FrameId] | None = None
        self.replaced = 0

    def take(self, picture: Picture, *, stamp_s: float, frame_id: FrameId) -> None:
        """Decide a picture when the one before is done, unless a newer one comes until then."""
        with self._lock:
            if self._busy:
                self.replaced += self._next is not None
                self._next = (picture, stamp_s, frame_id)
                return
            self._busy = True
        self._submit(picture, stamp_s, frame_id)

    def _submit(self, picture: Picture, stamp_s: float, frame_id: FrameId) -> None:
        try:
            future = self._cascade.submit(
                picture, timestamp_s=stamp_s, frame_id=frame_id, deadline_ms=self._deadline_ms
            )
        except TinySaverError as error:
            self._failed(error)
            self._go_on()
        else:
            future.add_done_callback(self._done)

    def _done(self, future: Future[Decision]) -> None:
        error = future.exception()
        if error is None:
            self._publish(future.result())
        else:
            self._failed(error)
        self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            waiting, self._next = self._next, None
            self._busy = waiting is not None
        if waiting is not None:
            self._submit(*waiting)


def main() -> None:
    """Spin the node."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Classification, ObjectHypothesis

    rclpy.init()
    node = Node("tinysaver")
    bundle = node.declare_parameter("bundle", "bundle").value
    deadline_ms = node.declare_parameter("deadline_ms", 100.0).value
    publisher = node.create_publisher(Classification, "classification", 10)

    def publish(decision: Decision) -> None:
        message = Classification()
        message.header.frame_id = decision.frame_id.source_id
        seconds = int(decision.timestamp_s)
        message.header.stamp.sec = seconds
        message.header.stamp.nanosec = int((decision.timestamp_s - seconds) * 1e9)
        result = ObjectHypothesis(class_id=decision.label, score=decision.confidence)
        message.results.append(result)
        publisher.publish(message)

    with Cascade.load(bundle) as cascade:
        classifier = Classifier(
            cascade,
            publish,
            deadline_ms=deadline_ms,
            failed=lambda error: node.get_logger().error(str(error)),
        )
        count = 0

        def heard(message: Any) -> None:
            nonlocal count
            try:
                picture = picture_of(
                    height=message.height,
                    width=message.width,
                    step=message.step,
                    encoding=message.encoding,
                    data=message.data,
                )
            except ValueError as error:
                node.get_logger().error(str(error))
                return
            stamp = message.header.stamp
            classifier.take(
                picture,
                stamp_s=stamp.sec + stamp.nanosec / 1e9,
                frame_id=FrameId(message.header.frame_id, count),
            )
            count += 1

        node.create_subscription(Image, "image", heard, qos_profile_sensor_data)
        try:
            rclpy.spin(node)
        except KeyboardInterrupt:
            pass
        finally:
            node.destroy_node()
            rclpy.try_shutdown()


if __name__ == "__main__":
    main()
