"""One mechanism each: background tasks, retries with waits, child processes, durable files."""
