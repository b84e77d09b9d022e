"""Keeps web hooks: who wants to know of which ends, what a notice says, and how it is signed."""
