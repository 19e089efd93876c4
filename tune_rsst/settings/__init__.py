"""What the user wrote: settings by name, their checks, addresses."""
