"""A fleet in virtual time: the product's planner and others' ways of choosing, over the same jobs."""
