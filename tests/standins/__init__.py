"""Stand-ins for what is outside: real HTTP servers that behave as Telegram, SaveTube and YouTube do."""
