"""Answers for all users or all items at once: recommendations, audiences, forecasts."""
