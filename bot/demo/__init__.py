"""The bot in a simulated Discord, on a browser page."""
