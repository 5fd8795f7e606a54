# The registry (pure) and the store that replicates it.
raftstore_libraftstore_a_SOURCES += \
	raftstore/registry.c raftstore/registry.h raftstore/registry_private.h \
	raftstore/registry_clients.c raftstore/registry_clients.h \
	raftstore/registry_level.c raftstore/registry_level.h \
	raftstore/registry_security.c raftstore/registry_security.h \
	raftstore/registry_renew.c raftstore/registry_settings.c raftstore/registry_snapshot.c \
	raftstore/settings.c raftstore/settings.h \
	raftstore/defer.c raftstore/defer.h \
	raftstore/digest.c raftstore/digest.h \
	raftstore/history.c raftstore/history.h \
	raftstore/last_words.c raftstore/last_words.h \
	raftstore/log_view.c raftstore/log_view.h \
	raftstore/offline.c raftstore/offline.h \
	raftstore/servers.h \
	raftstore/store.c raftstore/store.h raftstore/store_private.h \
	raftstore/store_disk.c raftstore/store_fsm.c raftstore/store_members.c raftstore/store_place.c \
	raftstore/store_propose.c \
	raftstore/store_text.c raftstore/store_text.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-damage
TESTS += tests/unit/test-damage
tests_unit_test_damage_SOURCES = tests/unit/test-damage.c tests/unit/store-node.c tests/unit/store-node.h
tests_unit_test_damage_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_damage_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_damage_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-log-view
TESTS += tests/unit/test-log-view
tests_unit_test_log_view_SOURCES = tests/unit/test-log-view.c tests/unit/store-node.c tests/unit/store-node.h
tests_unit_test_log_view_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_log_view_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_log_view_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-offline tests/unit/test-store tests/unit/test-store-kill
TESTS += tests/unit/test-offline tests/unit/test-store tests/unit/test-store-kill
tests_unit_test_offline_SOURCES = tests/unit/test-offline.c tests/unit/store-node.c tests/unit/store-node.h
tests_unit_test_offline_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) \
	-DSTORE_1='"$(top_srcdir)/tests/data/store-1"'
tests_unit_test_offline_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_offline_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_store_SOURCES = tests/unit/test-store.c tests/unit/store-node.c tests/unit/store-node.h
tests_unit_test_store_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_store_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_store_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_store_kill_SOURCES = \
	tests/unit/test-store-kill.c tests/unit/store-node.c tests/unit/store-node.h
tests_unit_test_store_kill_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_store_kill_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_store_kill_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
endif

# Fuzz targets are built twice, see units/automake.mk.
check_PROGRAMS += tests/fuzz/fuzz-snapshot-replay
TESTS += tests/fuzz/fuzz-snapshot-replay
tests_fuzz_fuzz_snapshot_replay_SOURCES = tests/fuzz/fuzz-snapshot.c tests/fuzz/fuzz.h tests/fuzz/snapshot.c tests/fuzz/snapshot.h tests/fuzz/replay.c
tests_fuzz_fuzz_snapshot_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/snapshot"'
tests_fuzz_fuzz_snapshot_replay_LDADD = raftstore/libraftstore.a raftstore/libschema.a $(UNITS_LIBS) $(PROTOBUF_C_LIBS)
EXTRA_DIST += tests/fuzz/corpus/snapshot
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-snapshot
tests_fuzz_fuzz_snapshot_SOURCES = tests/fuzz/fuzz-snapshot.c tests/fuzz/snapshot.c tests/fuzz/snapshot.h
tests_fuzz_fuzz_snapshot_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_fuzz_fuzz_snapshot_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_snapshot_LDADD = raftstore/libraftstore.a raftstore/libschema.a $(UNITS_LIBS) $(PROTOBUF_C_LIBS)
endif
