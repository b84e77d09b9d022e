"""Runs other libraries that hand entries on through Redis, each by the Python of its own environment."""
