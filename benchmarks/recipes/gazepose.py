"""GazePose: GazeLSTM with a transformer that asks the key frame's map about the head's pose and landmarks.

Published: 76.29 mAP on the Ego4D test set as InternLSTM's authors cite it, 77.02 over five runs by its own.
Priors: SynthLAM brings them; elsewhere --set priors=face_mesh computes them, and priors=file reads yours.
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
