"""The renderer of SynthLAM."""
