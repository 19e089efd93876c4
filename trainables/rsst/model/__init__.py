"""The network: its architecture, the weights it starts from, what it costs, and how it is saved."""
