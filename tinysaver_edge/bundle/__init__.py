"""The folder that a device needs: read, write and check it."""

from tinysaver_edge.bundle.bundle import Bundle

__all__ = ["Bundle"]
