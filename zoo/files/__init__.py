"""Files: written atomically, locked, checksummed, and read without trust."""
