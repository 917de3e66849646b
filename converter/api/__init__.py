"""The doors: HTTP in the native dialect and the probes; each turns requests into orders and outcomes into answers."""
