"""What moderators do: actions, the blocklist, and the record of it all."""
