"""What every program needs and no concept of ours.

files, numbers, parameters, progress, resources   whole files, numbers in words, data of the package
lazy, plug_ins, opencv   what is loaded only when it is asked for: names, other packages, OpenCV
"""
