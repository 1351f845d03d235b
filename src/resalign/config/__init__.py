"""Configuration: validated before the DAG is built, without importing torch."""
