# The guard between libraft and its disk and network, and what else keeps a replica's disk honest.
raftstore_libraftstore_a_SOURCES += \
	raftstore/disk_watch.c raftstore/disk_watch.h \
	raftstore/guard.c raftstore/guard.h \
	raftstore/guard_members.c raftstore/guard_members.h \
	raftstore/guard_message.c raftstore/guard_message.h \
	raftstore/raft_compat.h \
	raftstore/sidefile.c raftstore/sidefile.h

if HAVE_CMOCKA
GUARD_TEST_LIBS = raftstore/libraftstore.a base/libbase.a $(RAFT_LIBS) $(UV_LIBS) $(NETTLE_LIBS) \
	$(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/test-guard tests/unit/test-guard-chaos tests/unit/test-guard-disk
check_PROGRAMS += tests/unit/test-guard-members tests/unit/test-guard-messages
TESTS += tests/unit/test-guard tests/unit/test-guard-chaos tests/unit/test-guard-disk
TESTS += tests/unit/test-guard-members tests/unit/test-guard-messages
check_PROGRAMS += tests/unit/test-sidefile tests/unit/test-disk-watch
TESTS += tests/unit/test-sidefile tests/unit/test-disk-watch

tests_unit_test_guard_SOURCES = tests/unit/test-guard.c tests/unit/raft-cluster.c tests/unit/raft-cluster.h
tests_unit_test_guard_CFLAGS = $(AM_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_guard_LDADD = $(GUARD_TEST_LIBS)

tests_unit_test_guard_chaos_SOURCES = \
	tests/unit/test-guard-chaos.c tests/unit/raft-cluster.c tests/unit/raft-cluster.h
tests_unit_test_guard_chaos_CFLAGS = $(AM_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(CMOCKA_CFLAGS) \
	$(PROTOBUF_C_CFLAGS)
tests_unit_test_guard_chaos_LDADD = raftstore/libraftstore.a raftstore/libschema.a units/libunits.a \
	$(PROTOBUF_C_LIBS) $(GUARD_TEST_LIBS)

tests_unit_test_guard_disk_SOURCES = tests/unit/test-guard-disk.c
tests_unit_test_guard_disk_CFLAGS = $(AM_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_guard_disk_LDADD = $(GUARD_TEST_LIBS)

tests_unit_test_guard_members_SOURCES = \
	tests/unit/test-guard-members.c tests/unit/raft-cluster.c tests/unit/raft-cluster.h
tests_unit_test_guard_members_CFLAGS = $(AM_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_guard_members_LDADD = $(GUARD_TEST_LIBS)

tests_unit_test_guard_messages_SOURCES = \
	tests/unit/test-guard-messages.c tests/unit/raft-cluster.c tests/unit/raft-cluster.h
tests_unit_test_guard_messages_CFLAGS = $(AM_CFLAGS) $(RAFT_CFLAGS) $(UV_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_guard_messages_LDADD = $(GUARD_TEST_LIBS)

tests_unit_test_sidefile_SOURCES = tests/unit/test-sidefile.c
tests_unit_test_sidefile_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_sidefile_LDADD = $(GUARD_TEST_LIBS)

tests_unit_test_disk_watch_SOURCES = tests/unit/test-disk-watch.c
tests_unit_test_disk_watch_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_disk_watch_LDADD = $(GUARD_TEST_LIBS)
endif

# Fuzz targets are built twice, see units/automake.mk.
check_PROGRAMS += tests/fuzz/fuzz-sidefile-replay
TESTS += tests/fuzz/fuzz-sidefile-replay
tests_fuzz_fuzz_sidefile_replay_SOURCES = tests/fuzz/fuzz-sidefile.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_sidefile_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/sidefile"'
tests_fuzz_fuzz_sidefile_replay_LDADD = raftstore/libraftstore.a base/libbase.a $(NETTLE_LIBS)
EXTRA_DIST += tests/fuzz/corpus/sidefile
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-sidefile
tests_fuzz_fuzz_sidefile_SOURCES = tests/fuzz/fuzz-sidefile.c
tests_fuzz_fuzz_sidefile_CPPFLAGS = $(AM_CPPFLAGS)
tests_fuzz_fuzz_sidefile_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_sidefile_LDADD = raftstore/libraftstore.a base/libbase.a $(NETTLE_LIBS)
endif
