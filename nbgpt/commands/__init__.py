"""The subcommands, one module a family: what they can be asked, and thin functions that import what they need."""
