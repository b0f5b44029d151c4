"""The `rwkvperf` command: one module per subcommand."""
