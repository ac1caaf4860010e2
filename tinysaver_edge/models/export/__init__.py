"""From timm's architectures to a model file.

export      a timm model, from its name to checked files
catalogue   timm's published results
timm_model  a name and weights, made a torch model
checkpoint  weights, read without running anything
torch_onnx  a torch model, made .onnx; the layer that cannot be
quickstart  real ImageNet models, their weights from the package index
"""
