"""The contract: what travels, in which streams, and how it is written on the wire."""
