"""What `mailplat.interfaces` promises of a store, one topic a module; see `mailplat.testing.stores`."""
