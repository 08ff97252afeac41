"""Defaults of the command `predict`, of the functions for programs and of the page; imported by `--help`."""

MODEL = "geometry"
DETECTOR = "centerface"
DETECTIONS = 2.5  # whole frames per second to search for new faces
LEAST = 0.2  # seconds; shorter looks are dropped
MERGE = 0.2  # seconds; looks of a track this close together become one
