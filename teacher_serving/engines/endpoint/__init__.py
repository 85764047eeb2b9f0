"""Teachers behind an API: what a service gives, and how it is asked."""
