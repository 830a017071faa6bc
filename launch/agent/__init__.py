"""What a worker does on its own host: joins the coordinator, starts ranks, passes signals and exit codes on."""
