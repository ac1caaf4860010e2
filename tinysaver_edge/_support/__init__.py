"""What every program needs and no concept of ours.

files, numbers, parameters, progress, resources   whole files, numbers in words, data of the package
lazy, plug_ins, opencv   what is loaded only when it is asked for: names, other packages, OpenCV
limits, text, flatbuffer, jpeg_header   how much of what strangers send is taken, and how it is shown
urls, http_client, doors, wrong_tokens   addresses; a client and doors that keep within limits
"""
