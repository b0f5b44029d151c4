"""What counts an engine's work, in a process of its own after a case's timed samples."""
