"""Everything that touches picture bytes: decoding in child processes, sizes, storage."""
