"""What every program needs and no concept of ours.

files, toml, flatbuffer, resources   whole files, two formats, our own data
numbers, parameters, progress   numbers in words, checked numbers, how far a task is
lazy, plug_ins, opencv   what is loaded only when it is asked for: names, other packages, OpenCV
limits, text, jpeg_header   how much of what strangers send is taken, and how it is shown
urls, http_client, doors, wrong_tokens   addresses; a client and doors that keep within limits
"""
