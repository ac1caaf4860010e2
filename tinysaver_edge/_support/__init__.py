"""What every program needs and no concept of ours.

files, numbers, parameters, progress, resources   whole files, TOML, numbers in words, our data
plug_ins, packages         loaded only when asked for: other packages, names, engines and OpenCV
calls                      who is in the middle of a call, so that no signal handler waits for it
limits, text               how much of what strangers send is taken, and how it is shown
urls, http_client, doors   addresses; a client and doors that keep within limits
web/                       small sites behind such doors
"""
