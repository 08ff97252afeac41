"""Scores: predict, read, write, fuse, smooth, decode, submit."""
