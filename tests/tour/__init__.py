"""Six tests to read first, in this order: publish, hand-off, retry, dead letter, take-over, replay."""
