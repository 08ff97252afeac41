"""GazePose from random weights: what its start is worth.

GazeLSTM's two rows show the same for GazeLSTM: gazelstm starts at random, gazelstm_gaze360 at Gaze360's weights.
Run: python bench.py --recipe gazepose_random
"""

_base_ = ["gazepose.py"]

version = 1
method = "GazePose, random start"
published = None
init = "random"
