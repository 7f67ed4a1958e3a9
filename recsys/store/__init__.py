"""What is remembered between requests: histories of users, and feedback for the next training."""
