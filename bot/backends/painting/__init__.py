"""The procedural painter itself: Pillow and the standard library, in a process of its own."""
