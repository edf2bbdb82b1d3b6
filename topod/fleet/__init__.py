"""Many hosts: which of them gets a job. Pure: values in, values out."""
