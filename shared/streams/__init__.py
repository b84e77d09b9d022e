"""The machinery between an agent and Redis: read, settle, beat, take over, wait, bury, replay."""
