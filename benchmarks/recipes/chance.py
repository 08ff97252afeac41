"""Chance, a floor: every frame has the same score.

Ties are mixed evenly, so the average precision of each class is its share of the frames, and mAP is close to 50 for any
labels. The score is 0, so accuracy is that of never calling a frame looking.
Run: python bench.py --recipe chance
"""

version = 1
method = "Chance"
published = None

scorer = "chance"
# As in the other recipes, so that key frames are the same. Nothing is trained, so the stride of train is not used.
windows = dict(radius=3, stride=dict(train=13, val=13, test=1))
