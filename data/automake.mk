# What is installed beside the programs: unit files, default configuration, completions.
