"""From timm's architectures to a model file."""
