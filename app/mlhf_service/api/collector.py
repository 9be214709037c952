"""Python's garbage collector, kept from looking through what lives as long as the process."""

import gc


def set_aside() -> None:
    """Have all that is alive now left out of later collections.

    A full collection stops every request, most of it for modules, routes and schemas, none of
    which is ever freed.
    """
    gc.collect()
    gc.freeze()
