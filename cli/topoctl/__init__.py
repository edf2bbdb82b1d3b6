"""The `topoctl` command."""
