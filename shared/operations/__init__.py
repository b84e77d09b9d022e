"""What people and clocks do to a running pipeline: dead letters, status, pauses, retention."""
