"""The `deepsquare` command."""


def main() -> None:
    """The entry point of the command."""
    from deepsquare.cli.app import run

    run()
