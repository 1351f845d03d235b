"""What jobs take: time, memory, disk; planned and measured."""
