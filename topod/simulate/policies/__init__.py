"""Ways to choose: topod's own, the paper's, and models of other schedulers."""
