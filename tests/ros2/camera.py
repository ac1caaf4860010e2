"""A camera and a listener on ROS 2, in a process of their own: prints what was answered, as JSON.

Runs with the Python that has ROS 2, in the namespace of the node that is tested.
"""

import argparse
import json
import os
import sys
import threading
import time

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import Classification

COLOURS = {"amber": (0, 178, 255), "blue": (230, 51, 26), "green": (51, 153, 26)}
"""Three of tests/colours.py, as BGR."""


def encoded(picture, encoding):
    """Return a BGR picture as a camera of that encoding would send it, rows of bytes."""
    if encoding == "bgr8":
        return picture
    if encoding == "rgb8":
        return np.ascontiguousarray(picture[:, :, ::-1])
    if encoding == "bgra8":
        return cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
    if encoding == "yuv422_yuy2":
        yuv = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV)
        pairs = np.empty((*picture.shape[:2], 2), np.uint8)
        pairs[:, :, 0] = yuv[:, :, 0]
        pairs[:, 0::2, 1], pairs[:, 1::2, 1] = yuv[:, 0::2, 1], yuv[:, 0::2, 2]
        return pairs
    if encoding == "bayer_rggb8":
        mosaic = picture[:, :, 1].copy()
        mosaic[0::2, 0::2] = picture[0::2, 0::2, 2]
        mosaic[1::2, 1::2] = picture[1::2, 1::2, 0]
        return mosaic[:, :, None]
    raise SystemExit(f"encoding {encoding}")


def message_of(picture, encoding, frame_id):
    if encoding == "jpeg":
        message = CompressedImage(format="bgr8; jpeg compressed bgr8")
        message.data = cv2.imencode(".jpg", picture)[1].tobytes()
    else:
        pixels = encoded(picture, encoding)
        message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
        message.step = pixels.shape[1] * pixels.shape[2]
        message.data = pixels.tobytes()
    message.header.frame_id = frame_id
    return message


def change_state(node, transitions):
    """Ask the node for transitions, as a lifecycle manager does."""
    client = node.create_client(ChangeState, "/tinysaver/change_state")
    assert client.wait_for_service(timeout_sec=10)
    for transition in transitions:
        request = ChangeState.Request()
        request.transition.id = transition
        done = client.call_async(request)
        until_s = time.monotonic() + 20
        while not done.done() and time.monotonic() < until_s:
            time.sleep(0.02)
        assert done.result().success, f"transition {transition} was refused"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--encodings", nargs="+", default=["bgr8"])
    parser.add_argument("--cameras", nargs="+", default=[""])
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--frames", type=int, default=30, help="of each encoding")
    parser.add_argument("--reliability", default="best_effort")
    parser.add_argument("--transitions", nargs="*", type=int, default=[])
    parser.add_argument("--listens", type=float, default=1.0, help="seconds after the last")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    quality = QoSProfile(
        depth=100 if options.reliability == "reliable" else 10,
        reliability=ReliabilityPolicy[options.reliability.upper()],
        history=HistoryPolicy.KEEP_LAST,
    )
    rclpy.init()
    node = Node("test_camera")
    compressed = options.encodings == ["jpeg"]
    kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
    answers, decisions, told = [], [], []
    publishers = {}
    for camera in options.cameras:
        place = f"{camera}/" if camera else ""
        publishers[camera] = node.create_publisher(kind, place + topic, quality)
        node.create_subscription(
            Classification,
            f"{place}classification",
            lambda message, camera=camera: answers.append((time.monotonic(), camera, message)),
            QoSProfile(depth=1000),
        )
        node.create_subscription(String, f"{place}decision", decisions.append, 1000)
    node.create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    change_state(node, options.transitions)
    until_s = time.monotonic() + 20
    answered_in = [f"{one}/classification" if one else "classification" for one in options.cameras]
    while time.monotonic() < until_s and not (
        all(one.get_subscription_count() for one in publishers.values())
        and all(node.count_publishers(one) for one in answered_in)
    ):
        time.sleep(0.05)
    time.sleep(0.5)
    pictures = {name: np.full((height, width, 3), bgr, np.uint8) for name, bgr in COLOURS.items()}
    sent = {}
    number = 0
    print("sending", flush=True)
    begun_s = time.monotonic()
    for encoding in options.encodings:
        made = {
            (camera, name): message_of(picture, encoding, f"{camera or 'only'}_optical")
            for camera in options.cameras
            for name, picture in pictures.items()
        }
        for _ in range(options.frames):
            due_s = begun_s + number / options.fps
            time.sleep(max(0.0, due_s - time.monotonic()))
            name = list(COLOURS)[number % len(COLOURS)]
            number += 1
            for camera in options.cameras:
                message = made[camera, name]
                stamp_ns = time.time_ns()
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
                sent[camera, stamp_ns] = (name, encoding, time.monotonic())
                publishers[camera].publish(message)
    time.sleep(options.listens)
    print(json.dumps(summary(sent, list(answers), list(decisions), list(told))))
    sys.stdout.flush()
    os._exit(0)  # a spinning executor ends no other way without a word


def summary(sent, answers, decisions, told):
    exact, right, ages, by_encoding, frames = 0, 0, [], {}, set()
    for came_s, camera, message in answers:
        stamp = message.header.stamp
        known = sent.get((camera, stamp.sec * 10**9 + stamp.nanosec))
        frames.add((camera, message.header.frame_id))
        if known is not None:
            name, encoding, sent_s = known
            exact += 1
            right += message.results[0].class_id == name
            ages.append((came_s - sent_s) * 1e3)
            by_encoding[encoding] = by_encoding.get(encoding, 0) + 1
    decided = [json.loads(one.data) for one in decisions]
    levels, values = {}, {}
    for array in told:
        for status in array.status:
            levels.setdefault(status.name, set()).add(status.level[0])
            values[status.name] = {one.key: one.value for one in status.values}
    return {
        "sent": len(sent),
        "answered": len(answers),
        "exact": exact,
        "right": right,
        "by_encoding": by_encoding,
        "frame_ids": sorted(frames),
        "age_ms": [float(np.percentile(ages, one)) for one in (50, 95)] if ages else None,
        "decided_ms": float(np.median([one["timings_ms"]["total"] for one in decided] or [0.0])),
        "decision": decided[-1] if decided else None,
        "levels": {name: sorted(one) for name, one in levels.items()},
        "values": values,
    }


if __name__ == "__main__":
    main()
