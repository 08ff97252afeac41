"""GazePose: GazeLSTM with a transformer that queries the key frame's feature map with head pose and landmarks.

Published: 76.29 mAP on the Ego4D test set as cited by InternLSTM's authors, 77.02 over five runs by its own authors.
Start: ResNet-18 and LSTM of Gaze360, which began at ImageNet. On Ego4D name the file of import --as gaze360 with
--weights FILE. SynthLAM starts at weights trained on the gaze of rendered heads.
Priors: SynthLAM includes them; on other datasets --set priors=face_mesh computes them, and priors=file reads yours.
Run: python bench.py --recipe gazepose
"""

_base_ = ["gazelstm.py"]

version = 2
method = "GazePose"
published = "GazePose"

head = dict(_delete_=True, type="gazepose", width=512, feed_forward=2048, encoder_layers=6, decoder_layers=6)
init = "gaze360"
windows = dict(stride=dict(train=3))
temporal_dropout = True
augment = dict(flip=0.5, crop=0.8)
training = dict(
    epochs=10,
    lr=1e-4,
    schedule="cosine",
    schedule_floor=5e-6,
    schedule_unit="epoch",
    class_weight="balanced_key_frames",
)
