"""Models: what a file says of itself, what only its maker knows, and what it costs to run.

description/  what a file takes and gives
graph/        its operators, shapes and MACs
export/       from timm to a file
embed/        preprocessing moved into the graph
quantize/     smaller forms
compare/      whether it does what is said of it

labels.py holds class names from a file
"""
