"""Pictures of trials and sweeps, and the HTML page that holds them."""
