"""Messages as bytes: headers, addresses, structure. Pure: no Twisted, no storage."""
