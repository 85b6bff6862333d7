"""`fpn completion`: what a shell needs to finish the words of `fpn`."""

from __future__ import annotations

from typing import Literal


def run(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script for completing verbs and options with the Tab key.

    To install it: `fpn completion bash > ~/.local/share/bash-completion/completions/fpn`,
    `fpn completion zsh > ~/.zfunc/_fpn` (with ~/.zfunc in fpath, before compinit), or
    `fpn completion fish > ~/.config/fish/completions/fpn.fish`. Repeat this after an update of fpn.

    Args:
        shell: Which one.
    """
    from fpn.cli.app import make_app

    print(make_app().generate_completion(shell=shell), end="")
