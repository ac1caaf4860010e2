"""A model file's graph: shapes, operators, MACs.

graph           as plain values
reader          reads any model file with whatever is installed
onnx, openvino  one reader for each package
macs            multiply-accumulates
"""
