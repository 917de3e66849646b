"""A fleet: replicas, the load balancers of `deploy/` in front of them, and a crowd of callers, each as it is in use."""
