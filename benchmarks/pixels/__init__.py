"""Windows of pixels for backbones that train."""
