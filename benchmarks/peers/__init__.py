"""Other libraries that hand entries on through Redis, each run by the Python of its own environment."""
