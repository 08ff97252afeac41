"""True gaze, a ceiling: how directly the eyes look at the camera, from the renderer's gaze angle.

It is below 100 because the labels simulate annotators, who err. The score is 1 at 0 degrees, 0.5 at 6, and 0 for a
frame without a crop, whose angle is unknown. Only SynthLAM knows the angle.
Run: python bench.py --recipe truth
"""

_base_ = ["chance.py"]

version = 1
method = "True gaze"
scorer = "truth"
