"""Whether a machine has what the jobs and the service need; checks are handed all they look at."""
