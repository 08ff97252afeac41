"""Head pose alone, a floor: how directly the head points at the camera, from the pose that GazePose's head is given.

The angle to the camera comes from yaw and pitch. The smaller it is, the higher the score: 1 at 0 degrees, 0.5 at 6. A
frame without a head pose scores 0, like a head that is turned away.
Priors: SynthLAM includes them; on other datasets --set priors=face_mesh computes them, and priors=file reads yours.
Run: python bench.py --recipe pose_prior
"""

_base_ = ["chance.py"]

version = 1
method = "Head pose alone"
scorer = "pose_prior"
