"""The fetch engine: from a plan of media addresses to a finished, checked asset in the hot store."""
