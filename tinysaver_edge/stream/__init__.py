"""Streams: frames from cameras and files, decided as they come.

uri → opening → source (files, live, programs)      where frames come from
feeder → lane → dispatcher → outbox                 what happens to them, bounded throughout
pipeline, submissions                               a whole stream; single frames
frame, events, metrics, sink, watch                 what others need to know of all this
"""
