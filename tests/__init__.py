"""The promises of Slimheads, each with the test that keeps it; run them with `make test`."""
