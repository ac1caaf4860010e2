"""Let a tiny model answer the easy frames and ask the large one only when it is unsure.

from tinysaver_edge import Cascade

with Cascade.load("bundle/") as cascade:
decision = cascade.decide(frame)        # a BGR uint8 array, as OpenCV gives it
"""

from tinysaver_edge._version import __version__
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.decision import Decision, FrameId, Source, StageRef
from tinysaver_edge.errors import TinySaverError

__all__ = [
    "Bundle",
    "Cascade",
    "Decision",
    "FrameId",
    "Source",
    "StageRef",
    "TinySaverError",
    "__version__",
]
