"""Describing photos in a library's own terms: a local classifier and OpenAI-compatible services."""
