"""Sessions: one submission batch each, shared by all processes, bounded, with counters that are exact."""
