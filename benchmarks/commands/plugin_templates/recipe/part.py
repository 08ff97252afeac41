"""InternLSTM** on windows of eleven frames instead of seven. Replace it with your question.

Run: python bench.py --recipe FOLDER/my_part.py
"""

_base_ = ["lamzoo::internlstm_flip_tta"]  # all keys that are not here are this recipe's

version = 1  # raise it when a change here would move the figure
method = "my_part"  # stands in the table
published = None
windows = dict(radius=5)  # 5 frames to either side of the key frame
