"""The bot: everything but Discord's face and the database."""
