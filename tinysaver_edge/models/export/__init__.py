"""From timm's architectures to a model file.

export        a timm model, from its name to checked files; job makes them
catalogue     timm's published results
timm_model    a name and weights, made a torch model
checkpoint    weights, read without running anything
torch_onnx    a torch model, made .onnx
torch_layers  the layer that cannot be exported
"""
