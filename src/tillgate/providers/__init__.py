"""One folder per provider. A folder is its registration: `tillgate.registry` looks, nothing lists."""
