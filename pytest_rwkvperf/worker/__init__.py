"""Both ends of the pipe to a worker process: `parent` starts and ends it, `child` runs inside it."""
