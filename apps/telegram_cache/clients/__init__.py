"""The Bot API: calls, files, and the one place where its answers become errors."""
