"""What operators run: checks, backups, upkeep."""
