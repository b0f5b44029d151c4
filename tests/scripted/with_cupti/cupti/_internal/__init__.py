"""Where the package keeps what it loads from CUPTI."""
