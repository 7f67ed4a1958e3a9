"""What a search text means: its parts, its intent, completions of it, and facets of its answer."""
