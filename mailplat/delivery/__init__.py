"""What happens to a message between the wire and a mailbox."""
