"""Mailbox stores, and the spool where messages wait on their way to one."""
