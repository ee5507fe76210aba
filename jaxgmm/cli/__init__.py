"""The command `jaxgmm`: mixtures for every group of a table, from file to file.

Exit codes: 0 for success; 1 if no group ended CONVERGED or MAX_ITER, or `jaxgmm doctor` finds something wrong; 2 for
errors that the user can fix, from a misspelt column to a full disk, reported in one line on stderr; 130 after an
interrupt, which keeps finished parts.

    commands   declares the commands and options, with their help, together with jobs (fit and sweep) and of_fits (those
               that take fits); imports only typer
    fit, …     do the work of a command, and are imported when it is given; JAX and pyplot are imported through `jaxgmm`
               when first needed, so that misuse is reported before that
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace

from jaxgmm.cli import interrupts

MISUSE = 2

# Packages of the extra `cli`. They are looked up, not imported, before anything else is done.
_PACKAGES = ("typer", "rich.console", "pyarrow", "safetensors", "matplotlib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what follows the program's name; those of this process by default, which then ends at an interrupt.

    Returns:
        the exit code, as above.

    Raises:
        SystemExit: packages are missing.
    """
    is_program = arguments is None
    if is_program:
        interrupts.listen()
        sys.meta_path.insert(0, SimpleNamespace(find_spec=_without_pandas))  # pyright: ignore[reportArgumentType]
    interrupts.keeps(lambda: "nothing was written.")
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except interrupts.Interrupted as error:
        interrupts.say(str(error))
        if is_program or error.is_running:
            sys.stdout.flush()
            interrupts.end()
    except KeyboardInterrupt:
        interrupts.say(interrupts.kept())
        if is_program:
            interrupts.end()
    return interrupts.INTERRUPTED


def _run(arguments: list[str]) -> int:
    """The command's exit code. Errors that the user can fix are reported."""
    try:
        _check_packages()
        from jaxgmm.cli import commands, console  # noqa: PLC0415 (may be interrupted from here on, and may be missing)
    except ImportError as missing:
        # Nothing else is known to work that could print it.
        print(f"jaxgmm: the command needs more packages ({missing}); pip install 'jaxgmm[cli]'", file=sys.stderr)  # noqa: T201
        raise SystemExit(MISUSE) from None
    try:
        code = commands.app(args=arguments, prog_name="jaxgmm", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except console.usage_error as error:
        # Without a command, the help has been printed, and there is nothing to add.
        return _refuse(_usage(error)) if str(error) else MISUSE
    except (BrokenPipeError, SystemExit):
        # The reader has closed the pipe, which rich reports by an exit. Nothing more is printed, not even at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except console.abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if not _can_be_put_right(error):
            raise
        return _refuse(str(error))


def _without_pandas(name: str, *_: object) -> None:
    """Hides pandas: Arrow would import it, which takes long, only to test whether an array is a pandas series."""
    if name == "pandas":
        raise ModuleNotFoundError("the command does without pandas", name=name)


def _check_packages() -> None:
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}")


def _can_be_put_right(error: Exception) -> bool:
    # This must not import Arrow.
    arrow = sys.modules.get("pyarrow")
    if isinstance(error, ImportError):
        # One with a sentence about an extra; one that Python raises has the name of the module.
        return error.name is None
    return isinstance(error, ValueError | OSError) or (arrow is not None and isinstance(error, arrow.ArrowException))


def _usage(error: Exception) -> str:
    message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    # typer adds this where pydantic is installed.
    message = message.replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    help_text = f"see '{context.command_path if context else 'jaxgmm'} --help'."
    return f"{message} S{help_text[1:]}" if message.endswith("?") else f"{message.rstrip('.')}; {help_text}"


def _refuse(message: str) -> int:
    """Prints in one line what is wrong and what to do, and returns the exit code."""
    print(f"jaxgmm: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return MISUSE
