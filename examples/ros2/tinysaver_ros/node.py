"""The lifecycle node: parameters, topics and diagnostics around `Answering`."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import Classification, ObjectHypothesis

from tinysaver_edge import Bundle, Cascade, Decision, InputError, TinySaverError
from tinysaver_edge.stream import Dropped, Event
from tinysaver_ros.answering import Answering, Level, Settings, heeds
from tinysaver_ros.pictures import compressed_picture_of, picture_of

T = TypeVar("T")

DONE, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR,
}

DEFAULTS: dict[str, object] = {
    "bundle": "",
    "trusted": "",
    "large": "",
    "threads": 0,
    "cameras": [""],
    "compressed": False,
    "escalation": "wait",
    "deadline_ms": 100.0,
    "waiting": 1,
    "audit_share": 0.01,
    "diagnostics_period_s": 1.0,
    "autostart": True,
}
"""Every parameter; config/classify.yaml says what each is."""


class Classifier(LifecycleNode):
    """Subscribes to images while it is active, and publishes a classification for each.

    Configuring loads the bundle and activating starts to decide; deactivating keeps the models.
    """

    def __init__(self) -> None:
        super().__init__("tinysaver")
        self._cascade: Cascade | None = None
        self._bundle: Bundle | None = None
        self._answering: Answering | None = None
        self._subscriptions_made: list[Any] = []
        self._classified: dict[str, Any] = {}
        self._decided: dict[str, Any] = {}
        self._cameras: tuple[str, ...] = ()
        self._diagnostics: Any = None
        self._timer: Any = None
        # Of any type: 50 is a number where 50.0 is one, and what is none gets a line of ours.
        any_type = ParameterDescriptor(dynamic_typing=True)
        for name, default in DEFAULTS.items():
            self.declare_parameter(name, default, any_type)

    # Starting and stopping

    def started(self) -> bool:
        """Configure and activate where the parameters say so; False where that fails."""
        try:
            if not self._parameter("autostart", _flag):
                return True
        except InputError as error:
            self.get_logger().error(str(error))
            return False
        return bool(self.trigger_configure() == DONE and self.trigger_activate() == DONE)

    @property
    def failure(self) -> str | None:
        """Why no image is decided any more; None while all is well."""
        return None if self._answering is None else self._answering.failure

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the bundle, announce the answers' topics."""
        if self._managed(self._load):
            return DONE
        self.let_go()
        return FAILED

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images and decide them."""
        if self._managed(self._listen):
            return super().on_activate(state)
        self._stop()
        return FAILED

    def _managed(self, step: Callable[[], None]) -> bool:
        """Do something; where it fails say why, in a line. rclpy would keep it to itself."""
        try:
            step()
        except TinySaverError as error:
            self.get_logger().error(str(error))
            return False
        except Exception as error:  # rclpy's have no class in common
            said = " ".join(str(error).split())
            self.get_logger().error(f"{type(error).__name__}: {said}")
            return False
        return True

    def _listen(self) -> None:
        answering = self._answering
        assert answering is not None
        compressed = self._parameter("compressed", _flag)
        answering.start(compressed_picture_of if compressed else picture_of)
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        for name in self._cameras:
            self._subscriptions_made.append(
                self.create_subscription(
                    kind,
                    _of(name, topic),
                    self._heard(answering, name),
                    qos_profile_sensor_data,
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer what is on its way, and take no more images."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the models."""
        self.let_go()
        return DONE

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything."""
        self.let_go()
        return DONE

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything; the node can be configured anew."""
        self.let_go()
        return DONE

    def _load(self) -> None:
        settings = self._settings()
        bundle = self._parameter("bundle", str)
        if not bundle:
            raise InputError("parameter bundle: names no bundle; set it to the folder or .zip")
        self._bundle = Bundle.load(bundle, trusted=self._parameter("trusted", str) or None)
        self._cascade = Cascade.from_bundle(
            self._bundle,
            threads=self._parameter("threads", _whole) or None,
            large=self._parameter("large", str) or None,
        )
        self._answering = Answering(
            self._cascade,
            self._bundle,
            settings,
            answered=self._publish,
            listener=self._tell,
        )
        for warning in (self._cascade.doubt, *self._answering.service.warnings):
            if warning:
                self.get_logger().warning(warning)
        self._cameras = settings.cameras
        for name in settings.cameras:
            self._classified[name] = self._publisher(Classification, _of(name, "classification"))
            self._decided[name] = self._publisher(String, _of(name, "decision"))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        period_s = self._parameter("diagnostics_period_s", _number)
        self._timer = self.create_timer(period_s, self._diagnose)

    def _stop(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made.clear()
        if self._answering is not None:
            self._answering.stop()

    def let_go(self) -> None:
        """Stop and let go of models, topics and bundle; legal in every state."""
        self._stop()
        if self._timer is not None:
            self.destroy_timer(self._timer)
        for publisher in (*self._classified.values(), *self._decided.values(), self._diagnostics):
            if publisher is not None:
                self.destroy_publisher(publisher)
        self._classified.clear()
        self._decided.clear()
        for one in (self._cascade, self._bundle):
            if one is not None:
                one.close()
        self._answering = self._cascade = self._bundle = self._diagnostics = self._timer = None

    # Messages

    def _publisher(self, kind: type, topic: str) -> Any:
        return self.create_publisher(
            kind,
            topic,
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _heard(self, answering: Answering, camera: str) -> Callable[[Any], None]:
        return lambda message: answering.put(camera, message)

    def _publish(self, camera: str, header: Any, decision: Decision) -> None:
        """Publish an answer, in the stream's thread, with the header that came with the image."""
        hypothesis = ObjectHypothesis(class_id=decision.label, score=float(decision.confidence))
        self._classified[camera].publish(Classification(header=header, results=[hypothesis]))
        if self._decided[camera].get_subscription_count():
            stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
            told = {"stamp": stamp, "frame": header.frame_id, **decision.to_dict()}
            self._decided[camera].publish(String(data=json.dumps(told)))

    def _diagnose(self) -> None:
        if self._answering is None:
            return
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for status in self._answering.statuses():
            values = [KeyValue(key=key, value=value) for key, value in status.values.items()]
            name = f"{self.get_fully_qualified_name()[1:]}: {status.name}"
            message.status.append(
                DiagnosticStatus(
                    level=LEVELS[status.level], name=name, message=status.message, values=values
                )
            )
        self._diagnostics.publish(message)

    def _tell(self, event: Event, /) -> None:
        said = f"{event.source_id}: {event.text}" if event.source_id else event.text
        if heeds(event):
            self.get_logger().warning(said)
        elif not isinstance(event, Dropped):
            self.get_logger().info(said)

    # Parameters

    def _settings(self) -> Settings:
        deadline_ms = self._parameter("deadline_ms", _number)
        if not deadline_ms > 0:
            raise InputError(f"parameter deadline_ms: {deadline_ms:g} is not above 0")
        waiting = self._parameter("waiting", _whole)
        if waiting < 1:
            raise InputError(f"parameter waiting: {waiting} is not at least 1")
        if not self._parameter("diagnostics_period_s", _number) > 0:
            raise InputError("parameter diagnostics_period_s: is not above 0")
        escalation = self._parameter("escalation", str)
        if escalation not in ("wait", "local"):
            raise InputError(f"parameter escalation: {escalation!r} is neither wait nor local")
        cameras = self._parameter("cameras", _names)
        return Settings(
            cameras=cameras,
            escalation=escalation,
            deadline_ms=deadline_ms,
            waiting=waiting,
            audit_share=self._parameter("audit_share", _number),
        )

    def _parameter(self, name: str, read: Callable[[Any], T]) -> T:
        value = self.get_parameter(name).value
        try:
            return read(value)
        except (TypeError, ValueError):
            like = DEFAULTS[name]
            raise InputError(
                f"parameter {name}: {value!r} will not do; expected something like {like!r}"
            ) from None


def _of(camera: str, topic: str) -> str:
    return f"{camera}/{topic}" if camera else topic


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _whole(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _names(value: Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(one) for one in value) or ("",)
    if isinstance(value, str) or len(set(names)) < len(names) or {"", "image"} <= set(names):
        raise ValueError
    return names
