"""How good is a representation? Many tasks under one protocol, with intervals."""
