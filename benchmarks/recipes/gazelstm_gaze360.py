"""GazeLSTM from Gaze360's weights, trained like GazePose: one linear layer after the LSTM.

Published: 71.92 mAP on the Ego4D test set, in the table of GazePose's authors.
Start: ResNet-18 and LSTM of Gaze360. On Ego4D name the file of import --as gaze360 with --weights FILE. SynthLAM starts
at weights trained on the gaze of rendered heads.
Run: python bench.py --recipe gazelstm_gaze360
"""

_base_ = ["gazepose.py"]

version = 1
method = "GazeLSTM + Gaze360"
published = "GazeLSTM + Gaze360"

head = dict(_delete_=True, type="gazelstm", bottleneck=None)
training = dict(lr=5e-5)
