"""A real RTSP camera, for the system's Python: `rtsp_server.py PORT` (GStreamer's RTSP server).

Beside ``/camera`` it has ``/sound``, which sends no picture. With ``basic`` or ``digest``
behind PORT it wants the user ``user`` with the password ``s3cr3t``.

Every frame shows the time at which it was made, as milliseconds since the epoch in 48 squares that
are dark or bright, most significant first.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, FPS, SQUARE, BITS = 320, 240, 25, 32, 48
LAUNCH = (
    f"( appsrc name=camera is-live=true do-timestamp=true format=time "
    f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1 "
    f"! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=1500 "
    f"! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def picture():
    """Return a frame that shows the time, I420."""
    now = round(time.time() * 1e3)
    a_row = WIDTH // SQUARE
    rows = []
    for start in range(0, HEIGHT // SQUARE * a_row, a_row):
        line = bytearray()
        for place in range(start, start + a_row):
            bright = place < BITS and now >> (BITS - 1 - place) & 1
            line += bytes([220 if bright else 30]) * SQUARE
        rows.append(bytes(line) * SQUARE)
    luma = b"".join(rows).ljust(WIDTH * HEIGHT, b"\x80")
    return luma + b"\x80" * (WIDTH * HEIGHT // 2)


def configure(factory, media):
    """Feed a camera's frames for as long as someone looks."""
    source = media.get_element().get_child_by_name("camera")

    def push():
        flow = source.emit("push-buffer", Gst.Buffer.new_wrapped(picture()))
        return flow == Gst.FlowReturn.OK

    timer = GLib.timeout_add(1000 // FPS, push)
    media.connect("unprepared", lambda _: GLib.source_remove(timer))


SOUND = "( audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay0 pt=0 )"


def allow(factory):
    """Let the user in who has the password."""
    rights = GstRtspServer.RTSPPermissions.new()
    rights.add_permission_for_role("user", "media.factory.access", True)
    rights.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(rights)


def main():
    """Serve rtsp://127.0.0.1:PORT/camera until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/camera", factory)
    sound = GstRtspServer.RTSPMediaFactory()
    sound.set_launch(SOUND)
    server.get_mount_points().add_factory("/sound", sound)
    if len(sys.argv) > 2:  # every path of a server wants the same, so this is a camera of its own
        auth, method = GstRtspServer.RTSPAuth.new(), sys.argv[2]
        auth.set_supported_methods(
            GstRtsp.RTSPAuthMethod.DIGEST if method == "digest" else GstRtsp.RTSPAuthMethod.BASIC
        )
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if method == "digest":
            auth.add_digest("user", "s3cr3t", token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic("user", "s3cr3t"), token)
        server.set_auth(auth)
        allow(factory)
    if not server.attach(None):
        sys.exit(f"port {sys.argv[1]} is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
