"""The list of networks."""

from bench.foreign.networks import language, other_inputs, timm_images
from bench.foreign.networks.network import Network


def networks() -> dict[str, Network]:
    """Return all networks by name; nothing is imported or made yet."""
    return timm_images.networks() | language.networks() | other_inputs.networks()
