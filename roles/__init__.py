"""The actors: Mayor, polecat, Witness, and the town that runs them."""
