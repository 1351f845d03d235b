"""What each rule of the workflow tells its script: its settings, and the files that it reads."""
