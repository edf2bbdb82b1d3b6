"""The schema of the state database, one numbered file per version."""
