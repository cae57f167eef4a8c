"""The ways in which music bots already talk to such servers. Each is on when the setting DIALECTS names it."""
