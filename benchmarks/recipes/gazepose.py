"""GazePose: GazeLSTM with a transformer that queries the key frame's feature map with head pose and landmarks.

Published: 76.29 mAP on the Ego4D test set as cited by InternLSTM's authors, 77.02 over five runs by its own authors.
Priors: SynthLAM includes them; on other datasets --set priors=face_mesh computes them, and priors=file reads yours.
Run: python bench.py --recipe gazepose
"""

_base_ = ["gazelstm.py"]

version = 1
method = "GazePose"
published = "GazePose"

head = dict(_delete_=True, type="gazepose")
windows = dict(stride=dict(train=3, val=3))
temporal_dropout = True
training = dict(epochs=10, lr=1e-4, schedule="cosine")
