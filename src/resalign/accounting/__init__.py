"""Cost of jobs: time, memory, disk; estimated and measured."""
