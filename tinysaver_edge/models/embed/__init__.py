"""Preprocessing and postprocessing folded into a model's graph.

embed  into any graph that OpenVINO reads; which way is taken, or why a model is left as it is
onnx   into an .onnx graph
"""
