"""Data, networks and loop parts of `tools.pretrain_nano` and `tools.pretrain_gaze`."""
