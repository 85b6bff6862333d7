"""The table of verbs, and the one place where an error becomes a message and an exit status.

To add a verb: one file beside this one with a function `run`, and one line in `COMMANDS`. The function imports what it
needs inside its body, and returns None or an exit status. Its signature and docstring are its help, of which
`python -m fpn.cli.help_pages` makes the page that is shown. A path that has to be there says so in the signature, by a
word of `fpn.cli.paths`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from fpn.cli import bounds
from fpn.cli.complaints import of_options
from fpn.cli.help import read_pages
from fpn.cli.misuse import misplaced, told
from fpn.cli.paths import MisplacedError, hints_of, refuse_absent
from fpn.cli.stopping import ended_by_sigterm
from fpn.cli.terminal import errors, say_error, warnings_as_lines
from fpn.errors import ConfigError, FpnError
from fpn.training.interrupt import Terminated
from fpn.version import __version__

# Verb -> where it is and what `fpn --help` says of it. The files are imported when their verb is asked for.
COMMANDS = {
    "demo": ("fpn.cli.demo", "Train, measure and draw on made-up scenes, in minutes. No data needed."),
    "train": ("fpn.cli.train", "Train a detector on your labelled images."),
    "evaluate": ("fpn.cli.evaluate", "Measure a model: COCO average precision and recall."),
    "compare": ("fpn.cli.compare", "Say whether one model is better than another, and how sure that is."),
    "calibrate": ("fpn.cli.calibrate", "Choose each class's threshold, and write it into the model."),
    "report": ("fpn.cli.report", "Write one page on what a model can do, what it can't, and why."),
    "predict": ("fpn.cli.predict", "Find objects in images or films."),
    "batch": ("fpn.cli.batch", "Find objects in millions of images, as Parquet files; goes on after any stop."),
    "serve": ("fpn.cli.serve", "Run a server that finds objects in images sent over HTTP."),
    "suggest": ("fpn.cli.suggest", "Choose which images to label next, and draft their labels."),
    "explain": ("fpn.cli.explain", "Show shapes, receptive fields, equation 1, and how toolkits differ."),
    "diagnose": (
        "fpn.cli.diagnose",
        "Trace missed objects to the stage that lost them, and say what that costs in AP.",
    ),
    "plan": ("fpn.cli.plan", "Estimate what more labels would bring, by training small pilot models."),
    "ablate": ("fpn.cli.ablate", "Compare the designs of the paper's figure 1 and tables on your data."),
    "check": ("fpn.cli.check", "Find what is wrong with your labels, before it costs you a night."),
    "benchmark": ("fpn.cli.benchmark", "Measure speed on this machine, side by side with torchvision."),
    "split": ("fpn.cli.split", "Divide a dataset into train, val and test, each with its share of every class."),
    "import": ("fpn.cli.import_weights", "Turn a checkpoint of another toolkit into a model."),
    "export": (
        "fpn.cli.export",
        "Write a model for ONNX Runtime or OpenVINO, or its weights for torchvision or Detectron2.",
    ),
    "convert": ("fpn.cli.convert", "Write a dataset as COCO, VOC or YOLO."),
    "completion": ("fpn.cli.completion", "Print a script for Tab completion in bash, zsh or fish."),
    "doctor": ("fpn.cli.doctor", "Report what this machine has and what is wrong with it, to paste into a bug report."),
}

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143

_EMPTY = "Was a variable of the shell not set? Write a name, or . for the current folder."

_PROLOGUE = """\
Feature Pyramid Network object detectors: train one on your own images, measure it, use it.

Begin with `fpn demo`. Then run `fpn train DATA --output runs/first`, where DATA is a folder in COCO, VOC, YOLO or \
LabelMe format.
"""


def make_app(asked: str | None = None) -> App:
    """The application with all its verbs.

    Args:
        asked: the verb that is wanted. Its own docstring is its help; the others' files are not even imported.
    """
    app = App(
        name="fpn",
        help=_PROLOGUE,
        version=__version__,
        # Plain text: reading Markdown would double the time that help takes.
        help_format="plaintext",
        # `--milestones 0.6 0.9` takes both. `--no-x` for switches is plain; `--empty-x` for lists would be noise.
        default_parameter=Parameter(
            negative_iterable=(), consume_multiple=True, show_default=_as_typed, validator=bounds.Bound()
        ),
        suppress_keyboard_interrupt=False,
    )
    for place, (verb, (where, summary)) in enumerate(COMMANDS.items()):
        if verb == asked:
            app.command(_with_flowing_help(where), name=verb, sort_key=place)
        else:
            app.command(f"{where}:run", name=verb, help=summary, sort_key=place)
    return app


def run_command(words: Sequence[str]) -> int:
    """Run one command; see `fpn.cli.main`."""
    if (empty := _empty_word(words)) is not None:
        say_error(empty)
        _hint_at_help(words)
        return MISUSED
    try:
        with warnings_as_lines(), ended_by_sigterm():
            status = _run(words)
        return status if isinstance(status, int) else 0
    except CycloptsError as error:
        say_error(of_options(misplaced(error, words[1:]) or told(error), words))
        if isinstance(error, MissingArgumentError):
            _show_usage(words)
        _hint_at_help(words)
        return MISUSED
    except ConfigError as error:
        say_error(of_options(str(error), words))
        return FAILED
    except FpnError as error:
        say_error(str(error))
        if isinstance(error, MisplacedError):
            _show_usage(words)
        _hint_at_uv(str(error))
        return FAILED
    except BrokenPipeError:
        raise  # is no error of the command; see `fpn.cli.main`
    except OSError as error:  # such as of a name that is too long for the file system
        say_error(_plain_system(error))
        return FAILED
    except Terminated:
        errors().print("stopped by SIGTERM")
        return TERMINATED
    except KeyboardInterrupt:
        errors().print("stopped by Ctrl-C")
        return INTERRUPTED


def _run(words: Sequence[str]) -> object:
    """What the verb returns. Wrong words are told first, then paths that are not there."""
    app = make_app(words[0] if words else None)
    verb, given, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    if words and words[0] in COMMANDS:  # and not --version
        refuse_absent(given.arguments, hints_of(verb))
    return verb(*given.args, **given.kwargs)


def _empty_word(words: Sequence[str]) -> str | None:
    """What is wrong with an empty word. As a path it would be the current folder, which nobody meant."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if not word:
            return f'word {number + 1} is empty (""), after {words[number - 1] if number else "fpn"}. {_EMPTY}'
        if option.startswith("--") and equals and not value:
            return f"{option}= is empty. {_EMPTY}"
    return None


def _with_flowing_help(where: str) -> Callable[..., object]:
    """A module's `run`; its docstring's lines end where a terminal is full, not where the source is."""
    function: Callable[..., object] = import_module(where).run
    function.__doc__ = flowing(function.__doc__ or "")
    return function


def _as_typed(default: object) -> str | None:
    """A default as one would type it. Where it is None, the option's own text says what that means."""
    if isinstance(default, tuple | list):
        return " ".join(map(str, default)) or None
    if isinstance(default, bool):
        return "yes" if default else "no"
    return None if default is None else str(default)


def flowing(docstring: str) -> str:
    """Each paragraph, and each argument's description, on one line."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        indent = len(line) - len(line.lstrip())
        # Arguments are indented by 4, what continues them by 8.
        continues = bool(line) and indent != 4 and bool(lines) and lines[-1] not in ("", "Args:")
        if continues:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def _plain_system(error: OSError) -> str:
    """What the system refused, and of which file."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _show_usage(words: Sequence[str]) -> None:
    if words[0] in COMMANDS:
        errors().print(f"Usage: {read_pages()[words[0]]['usage']}", markup=False, highlight=False)


def _hint_at_help(words: Sequence[str]) -> None:
    verb = f" {words[0]}" if words and words[0] in COMMANDS else ""
    errors().print(f"See: fpn{verb} --help")


def _hint_at_uv(message: str) -> None:
    """In an environment that uv has made, pip is that of another one, where it would look for another fpn."""
    extra = re.search(r"pip install 'fpn\[(\w+)\]'", message)
    if extra is not None and find_spec("pip") is None:
        errors().print(f"This environment has no pip. In a clone: uv run --extra {extra[1]} fpn", markup=False)
