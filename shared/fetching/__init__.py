"""Fetches a photo's bytes from the address that a submission names."""
