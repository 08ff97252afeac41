"""A video of one's own -> who looked, when, for how long: decoding, faces, tracks, scores, bouts, files."""
