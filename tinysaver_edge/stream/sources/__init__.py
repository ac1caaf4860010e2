"""Where frames come from: cameras, files, programs.

source   the contract `Source`, and `Frame`, which it gives
live     a device that is read by a thread: the newest frame counts, and what is lost comes back
opencv   devices: cameras, RTSP and MJPEG, GStreamer
snapshot a camera that gives one picture a request
files    images and videos; container is what a video says of itself
uri      one grammar of addresses
cut      a region of each frame, with parts of it blanked
opening  whatever frames can come from becomes a source; those of other packages too
"""
