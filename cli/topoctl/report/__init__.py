"""`topoctl report`: a period as a page of its own. All but `gather` is pure: values in, HTML out."""
