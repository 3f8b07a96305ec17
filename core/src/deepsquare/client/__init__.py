"""What customers use: `Client` (async), `BlockingClient`, the job handle, funding and logs."""
