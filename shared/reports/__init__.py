"""Writes what people read: one JSON report per photo, one HTML page per session."""
