"""Smaller and quicker forms of a model, INT8 or half precision, and what they lose.

quantize  makes a form and tells what it costs
forms     how ONNX Runtime's and OpenVINO's tools make one
"""
