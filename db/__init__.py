"""The database: SQL, and rows as frozen objects."""
