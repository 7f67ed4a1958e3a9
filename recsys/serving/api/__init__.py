"""What travels over HTTP: requests, answers and problems."""
