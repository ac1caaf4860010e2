"""Smaller and quicker forms of a model, INT8 or half precision, and what they lose.

quantize        makes a form and tells what it costs
onnx, openvino  how each toolkit makes one
"""
