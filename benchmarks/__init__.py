"""Produces every performance figure of docs/performance.md."""
