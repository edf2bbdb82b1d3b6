"""The pieces of the reader of `nvidia-smi topo -m`; `topod.discovery.parse_smi_topo` puts them together."""
