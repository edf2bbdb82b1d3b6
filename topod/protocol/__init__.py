"""What is said between topoctl and topod: typed, versioned messages."""
