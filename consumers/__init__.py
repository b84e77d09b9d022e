"""The agents: one file each, a function from event to event."""
