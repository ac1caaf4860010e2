"""Verify: does a bundle keep on this machine what was promised where it was calibrated?

run      all checks in order; the first that fails is the cause
check    one promise that was looked at; the same engines
golden   the same pixels, the same answers
follow   a tag: what is pushed under it is fetched, proven, tried, and kept or rolled back
trial    what one on trial decides, and whether it has failed by that
"""
