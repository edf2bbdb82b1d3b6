"""The life of jobs on one host, as a pure state machine: events in, effects out."""
