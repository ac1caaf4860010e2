"""The dashboard: one page about a running stream, served from the device itself.

server  serves it from a thread of its own
app     the pages, and who may see them
state   what they show; timeline is its last minutes
"""

from tinysaver_edge.stream.dashboard.server import Dashboard
from tinysaver_edge.stream.dashboard.state import DashboardState

__all__ = ["Dashboard", "DashboardState"]
