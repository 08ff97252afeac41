"""From a user's own marks on faces of a finished prediction to a model calibrated on them."""
