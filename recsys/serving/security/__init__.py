"""Who may call, how often and how large, as ASGI layers around any application. No Ray here."""
