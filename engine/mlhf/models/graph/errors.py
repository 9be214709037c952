"""What a module that cannot be written as a graph is refused with."""


class TraceError(ValueError):
    """A module that cannot be traced.

    Attributes:
        operation: What it does that a graph cannot.
        line: Where: file, line and text of the module's code.
        instead: What to write instead.
    """

    def __init__(self, operation: str, line: str, instead: str) -> None:
        where = f"\n  at {line}" if line else ""
        super().__init__(f"the module uses {operation}.{where}\n  Write instead: {instead}.")
        self.operation, self.line, self.instead = operation, line, instead
