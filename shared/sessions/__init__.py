"""Keeps sessions: one submission batch each, shared by all processes, bounded, with exact counters."""
