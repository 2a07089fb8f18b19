"""The `mailplat` command."""
