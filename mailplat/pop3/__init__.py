"""POP3: engine, session, server."""
