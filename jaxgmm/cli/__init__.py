"""The command `jaxgmm`: mixtures for every group of a table, from file to file.

Exit codes: 0 when all is done, however the fits ended (a group without an answer is a row that says why); 1 when
`jaxgmm doctor` finds something wrong; 2 for what the user can put right, from a misspelt column to a full disk, said in
one line on stderr; 130 after an interrupt, which keeps the parts that are done.
"""

import os
import sys
from collections.abc import Sequence

try:
    import pyarrow as pa
    import typer

    from jaxgmm.cli import console, demo, doctor, fit, info, pictures, use
except ImportError as missing:
    # This module is a program, and the one line is its whole output.
    print(f"jaxgmm: the command needs more packages ({missing}); pip install 'jaxgmm[cli]'", file=sys.stderr)  # noqa: T201
    raise SystemExit(2) from None

app = typer.Typer(
    name="jaxgmm",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
)


@app.callback()
def _root(
    version: console.Version = False,
) -> None:
    """Gaussian mixtures in bulk: thousands to millions of fits in one call.

    Exit codes: 0 done; 1 `jaxgmm doctor` found something wrong; 2 misuse, said in one line; 130 interrupted.
    """


app.command("fit")(fit.fit_file)
app.command("sweep")(fit.sweep_file)
app.command("predict")(use.predict_file)
app.command("sample")(use.sample_file)
app.command("plot")(pictures.plot_file)
app.command("info")(info.info)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what follows the program's name; those of this process by default.

    Returns:
        the exit code: 0, 1 where the doctor finds something wrong, 2 for misuse, 130 for an interrupt.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="jaxgmm", standalone_mode=False)
    except console.usage_error as error:
        # Without a command, the help has been printed, and there is nothing to add.
        return _refuse(_usage(error)) if str(error) else console.MISUSE
    except (BrokenPipeError, SystemExit):
        # Whoever read this has seen enough, which rich says by an exit. Nothing more is printed, not even at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, pa.ArrowException) as error:
        return _refuse(str(error))
    except console.Interrupted as error:
        console.say(f"\njaxgmm: interrupted; {error}")
        if error.is_running:
            # Threads at work in compiled code cannot be stopped, and an orderly exit would wait for them.
            sys.stdout.flush()
            os._exit(console.INTERRUPTED)
        return console.INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        console.say("\njaxgmm: interrupted; nothing was written.")
        return console.INTERRUPTED
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    context = getattr(error, "ctx", None)
    if message.startswith("Got unexpected extra argument") and context and context.command.name in ("fit", "sweep"):
        return f"{message}; separate columns by commas, as in --by plate,well."
    return f"{message.rstrip('.')}; see '{context.command_path if context else 'jaxgmm'} --help'."


def _refuse(message: str) -> int:
    """Says in one line what is wrong and what to do, and returns the exit code."""
    console.say(f"jaxgmm: error: {' '.join(message.split())}")
    return console.MISUSE
