"""All that knows discord.py outside the cogs: the client, its connection, its answers."""
