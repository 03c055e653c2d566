"""Jobs: plain functions that take work from the rows, do it, and write it back. Celery only rings the bell."""
