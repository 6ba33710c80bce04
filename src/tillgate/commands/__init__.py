"""The command line, one module per group of commands; each is a typer app that `tillgate.cli` mounts."""
