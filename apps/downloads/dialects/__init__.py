"""The ways in which music bots already talk to such servers. Each is on or off: settings page, else DIALECTS."""
