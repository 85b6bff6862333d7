"""Where the command begins: help is shown at once, everything else is left to `fpn.cli.app`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fpn.cli.help import asked_page, show_page


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        tokens: the words after `fpn`; None: the process's own.

    Returns:
        Exit status: 0 done, 1 failed, 2 misused, 130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if tokens is None else tokens)
    try:
        page = asked_page(words)
        if page is None:
            from fpn.cli.app import run_command

            return run_command(words)
        show_page(page)
        return 0
    except BrokenPipeError:
        # The reader, such as `head`, has left. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
