"""What every program needs and no concept of ours.

files, numbers, parameters, progress, resources   whole files, numbers in words, data of the package
lazy, plug_ins, packages   loaded only when asked for: names, other packages, engines and OpenCV
calls, documents           what may be called where; TOML and JSON, read within bounds
limits, text, flatbuffer   how much of what strangers send is taken, and how it is shown
urls, http_client, doors   addresses; a client and doors that keep within limits
"""
