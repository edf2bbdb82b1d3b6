"""The resource graph of a host: affinity domains and the tables that answer questions about GPU sets."""
