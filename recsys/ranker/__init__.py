"""The last order of what a search found: what is known of each candidate, and what clicks teach."""
