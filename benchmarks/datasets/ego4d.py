"""Ego4D Looking-At-Me at the published scale. The data is licensed: name your copy with --root DIR."""

type = "ego4d"
