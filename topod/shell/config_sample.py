"""The configuration file as it is installed: every key with its meaning, commented out at its default."""

from importlib import resources


def sample_config() -> str:
    """Return the text of `/etc/topod/topod.toml` for a new machine; it changes nothing as it stands.

    Comments begin with `# `, settings that are switched off with `#` alone.
    """
    return resources.files("topod.shell").joinpath("topod.toml").read_text(encoding="utf-8")
