"""Predictions for a user's video: decoding, face detection, tracking, scores, bouts, files."""
