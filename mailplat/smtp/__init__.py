"""SMTP, submission and LMTP: grammar, data, engine, session, server."""
