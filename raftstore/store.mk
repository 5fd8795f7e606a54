# The registry (pure) and the store that replicates it.
raftstore_libraftstore_a_SOURCES += \
	raftstore/registry.c raftstore/registry.h raftstore/registry_private.h \
	raftstore/registry_snapshot.c \
	raftstore/defer.c raftstore/defer.h \
	raftstore/servers.h \
	raftstore/store.c raftstore/store.h \
	raftstore/store_text.c raftstore/store_text.h
