"""Features of a frozen backbone: extraction and the feature store."""
