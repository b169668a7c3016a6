"""What operators run: checks and backups."""
