"""IMAP: framing, grammar, commands, responses, engine; view, fetch, search; session, server."""
