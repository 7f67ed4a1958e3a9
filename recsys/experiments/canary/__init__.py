"""A candidate that takes the live model's place by shares of the users, watched at each step."""
