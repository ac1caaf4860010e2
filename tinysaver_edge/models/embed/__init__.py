"""Preprocessing and postprocessing folded into a model's graph.

embed     which of the two does it, or why a model is left as it is
onnx      into an .onnx graph, with the small changes of onnx_editor
openvino  into any graph that OpenVINO reads
"""
