"""`topoctl web`: the screens of `topoctl top` in a browser."""
