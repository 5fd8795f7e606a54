# raftstore
