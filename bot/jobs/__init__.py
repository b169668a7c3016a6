"""The life of one job: accepted, queued, run, ended."""
