"""The dashboard: one page about a running stream, served from the device itself."""

from tinysaver_edge.stream.dashboard.server import Dashboard
from tinysaver_edge.stream.dashboard.state import DashboardState

__all__ = ["Dashboard", "DashboardState"]
