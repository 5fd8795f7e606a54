# What is replicated and how: the schema, the state machine (pure), the guard around libraft, its network, the store.
noinst_LIBRARIES += raftstore/libschema.a raftstore/libraftstore.a

raftstore_libschema_a_SOURCES = raftstore/fleet.proto raftstore/limits.h
nodist_raftstore_libschema_a_SOURCES = raftstore/fleet.pb-c.c raftstore/fleet.pb-c.h
raftstore_libschema_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
BUILT_SOURCES += raftstore/fleet.pb-c.h
CLEANFILES += raftstore/fleet.pb-c.c raftstore/fleet.pb-c.h

raftstore/fleet.pb-c.h: raftstore/fleet.proto
	$(AM_V_GEN)$(MKDIR_P) raftstore && $(PROTOC_C) --c_out=. -I$(top_srcdir) $(top_srcdir)/raftstore/fleet.proto
raftstore/fleet.pb-c.c: raftstore/fleet.pb-c.h

raftstore_libraftstore_a_SOURCES =
raftstore_libraftstore_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)

RAFTSTORE_LIBS = raftstore/libraftstore.a raftstore/libschema.a units/libunits.a pki/libpki.a base/libbase.a \
	$(RAFT_LIBS) $(UV_LIBS) $(GNUTLS_LIBS) $(PROTOBUF_C_LIBS) $(NETTLE_LIBS)

include raftstore/port.mk
include raftstore/guard.mk
include raftstore/store.mk
