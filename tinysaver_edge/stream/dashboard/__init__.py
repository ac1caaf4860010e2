"""The dashboard: one page about a running stream, served from the device itself.

site   what is on it
state  what it shows; timeline is its last minutes
"""

from tinysaver_edge.stream.dashboard.site import Dashboard
from tinysaver_edge.stream.dashboard.state import DashboardState

__all__ = ["Dashboard", "DashboardState"]
