# constraints
