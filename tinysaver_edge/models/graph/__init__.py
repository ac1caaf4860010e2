"""A model file's graph: shapes, operators, MACs.

graph   as plain values
reader  reads any model file with whatever is installed
onnx    reads .onnx
macs    multiply-accumulates
"""
