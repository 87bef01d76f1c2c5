"""Celery workers: `make test-celery`. `make test` leaves this folder out, because it needs a broker."""
