"""Streams: where frames come from."""
