"""`topoctl completion`: what a shell needs to complete commands and options."""

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLES = """
source <(topoctl completion bash)
topoctl completion zsh > "${fpath[1]}/_topoctl"
topoctl completion fish > ~/.config/fish/completions/topoctl.fish
"""

BASH = """\
_topoctl_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        _TOPOCTL_COMPLETE=complete_bash topoctl 2>/dev/null ) )
    return 0
}
complete -o default -F _topoctl_completion topoctl
"""
ZSH = """\
#compdef topoctl
_topoctl_completion() {
    eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _TOPOCTL_COMPLETE=complete_zsh topoctl 2>/dev/null)
}
compdef _topoctl_completion topoctl
"""
FISH = """\
complete --command topoctl --no-files --arguments \\
    "(env _TOPOCTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \\
    _TYPER_COMPLETE_ARGS=(commandline -cp) topoctl 2>/dev/null)" \\
    --condition "env _TOPOCTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args \\
    _TYPER_COMPLETE_ARGS=(commandline -cp) topoctl 2>/dev/null"
"""


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", show_default=False)],
) -> None:
    """Print the completion script of a shell."""
    typer.echo({Shell.BASH: BASH, Shell.ZSH: ZSH, Shell.FISH: FISH}[shell], nl=False)
