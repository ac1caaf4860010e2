"""What every program needs and no concept of ours.

files, numbers, progress, resources   whole files, TOML, numbers in words, our own data
plug_ins, packages         what is had by name: plug-ins, parameters, names, engines and OpenCV
calls                      who is in the middle of a call, so that no signal handler waits for it
limits, text               how much of what strangers send is taken, and how it is shown
urls, http_client, doors   addresses; a client and doors that keep within limits
web/                       small sites behind such doors
"""
