"""`topoctl simulate`: days of a fleet in virtual time, under one way to choose or several."""
