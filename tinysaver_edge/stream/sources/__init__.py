"""Where frames come from: cameras, files, programs."""
