A mail server you can start: SMTP, submission and LMTP in, IMAP and POP3 out, over an embedded durable store and swappable parts.
