"""InternGRU**: InternLSTM** with gated recurrent units in place of the LSTM.

Not published. It shows the value of the LSTM's cell state.
Run: python bench.py --recipe interngru_flip_tta
"""

_base_ = ["internlstm_flip_tta.py"]

version = 1
method = "InternGRU**"
published = None
head = dict(_delete_=True, type="gru", projection=1000, hidden=1000, layers=2, mlp=(1024, 512, 512), dropout=0.5)
