"""The live dashboard: one publisher of the whole installation, and a websocket for everybody who looks."""
