"""Ego4D Looking-At-Me at the published scale. Licensed data: name your own copy with --root DIR."""

type = "ego4d"
