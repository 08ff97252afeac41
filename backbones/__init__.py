"""Backbones: image -> feature vector. The registry imports every module here."""
