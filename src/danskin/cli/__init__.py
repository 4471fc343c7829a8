"""The command line. `main` turns errors into messages and exit codes; commands live in their own files."""

from __future__ import annotations

import errno
import os
import sys

EXIT_FAILED, EXIT_USAGE, EXIT_CLAIM, EXIT_MISSING, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


def main() -> None:
    """Entry point of `danskin`."""
    try:
        from danskin.cli.app import app
    except ImportError as error:
        print(f"danskin: the command line needs {error.name}; pip install 'danskin[run]'", file=sys.stderr)
        sys.exit(EXIT_MISSING)
    from danskin.errors import DanskinError, DivergenceError, MissingError, ModelError
    from danskin.run.interrupts import term_as_interrupt

    try:
        with term_as_interrupt():
            app(standalone_mode=True, prog_name="danskin")
    except KeyboardInterrupt:
        print("danskin: interrupted; what was finished is saved", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        where = "disk" if error.filename is None else error.filename
        told = f"expected to read or write there, got {error.strerror}; see the path, who owns it, and the space"
        print(f"danskin: {where}: {told}", file=sys.stderr)
        sys.exit(EXIT_MISSING)
    except DanskinError as error:
        print(f"danskin: {error}", file=sys.stderr)
        if isinstance(error, MissingError):
            sys.exit(EXIT_MISSING)
        sys.exit(EXIT_FAILED if isinstance(error, DivergenceError | ModelError) else EXIT_USAGE)


if __name__ == "__main__":
    main()
