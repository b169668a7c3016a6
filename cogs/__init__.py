"""What Discord shows: thin commands, cards and buttons over `bot`."""
