"""How fast this project is on this machine. Other projects are measured beside it by `benchmarks/`."""
