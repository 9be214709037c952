"""The ``mlhf`` command, also where what the service needs is not installed."""


def main() -> None:
    """Run the command line, or say in one sentence how to install it."""
    try:
        from mlhf_service.cli.main import main as run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "mlhf", "mlhf_service"):
            raise
        raise SystemExit(
            f"mlhf: the command line needs {missing}, which is not installed: "
            "pip install 'mlhf[service]'"
        ) from None
    run()
