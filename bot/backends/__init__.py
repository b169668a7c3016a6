"""Where pictures are made: one protocol, several backends."""
