"""The delivery engine between an agent and Redis: read, handle, settle, take over."""
