"""The ``mlhf`` entry point."""

from mlhf_service.cli.errors import explain


def main() -> None:
    """Run the command line. What goes wrong is shown in one line, not as a traceback."""
    with explain():
        from mlhf_service.cli.app import cli  # here, for a package of it may be missing

        cli()


if __name__ == "__main__":
    main()
