"""Making topod a service of this machine, and undoing it: steps that are listed first, and then done."""
