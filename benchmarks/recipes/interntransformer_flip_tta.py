"""InternTransformer**: InternLSTM** with self-attention over the seven frames, absent frames masked.

Not published.
Run: python bench.py --recipe interntransformer_flip_tta
"""

_base_ = ["internlstm_flip_tta.py"]

version = 1
method = "InternTransformer**"
published = None
head = dict(_delete_=True, type="transformer")
