"""Decides what to do when something fails: classify it, try again, or stop asking a side that is down."""
