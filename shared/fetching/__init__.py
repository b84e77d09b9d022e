"""Bringing a photo's bytes in, from wherever a submission says they are."""
