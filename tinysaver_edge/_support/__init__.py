"""What every program needs and no concept of ours.

files, toml, numbers, parameters, progress, resources   whole files, numbers in words, our own data
lazy, plug_ins, opencv   what is loaded only when it is asked for: names, other packages, OpenCV
"""
