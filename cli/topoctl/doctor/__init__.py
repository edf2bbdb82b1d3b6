"""`topoctl doctor`: what topod would find on this machine and what mends it, part by part."""
