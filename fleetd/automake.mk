# The daemon: the pure core, what every host does, what the leader does.
include fleetd/agent.mk
include fleetd/http.mk
include fleetd/api.mk

noinst_LIBRARIES += fleetd/libcore.a
fleetd_libcore_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
fleetd_libcore_a_SOURCES = \
	fleetd/core/core.c fleetd/core/core.h fleetd/core/core_private.h \
	fleetd/core/decide.c \
	fleetd/core/drain.c fleetd/core/drain.h \
	fleetd/core/failing.c fleetd/core/failing.h \
	fleetd/core/silence.c \
	fleetd/core/effects.c fleetd/core/effects.h \
	fleetd/core/hosts.c fleetd/core/hosts.h \
	fleetd/core/lease.c \
	fleetd/core/shutdown.c \
	fleetd/core/status.c \
	fleetd/core/voters.c fleetd/core/voters.h fleetd/core/voters_private.h \
	fleetd/core/voters_say.c

CORE_LIBS = fleetd/libcore.a constraints/libconstraints.a

if HAVE_CMOCKA
CORE_TEST_LIBS = fleetd/libcore.a constraints/libconstraints.a raftstore/libraftstore.a raftstore/libschema.a \
	$(UNITS_LIBS) $(PROTOBUF_C_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/test-core tests/unit/test-core-change tests/unit/test-voters
TESTS += tests/unit/test-core tests/unit/test-core-change tests/unit/test-voters
check_PROGRAMS += tests/unit/test-member
TESTS += tests/unit/test-member
tests_unit_test_member_SOURCES = tests/unit/test-member.c fleetd/member.c fleetd/member.h
tests_unit_test_member_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(INIH_CFLAGS) \
	-DSTORE_1='"$(top_srcdir)/tests/data/store-1"'
tests_unit_test_member_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_member_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(INIH_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-asks tests/unit/test-journal-entry
TESTS += tests/unit/test-asks tests/unit/test-journal-entry
tests_unit_test_asks_SOURCES = tests/unit/test-asks.c fleetd/asks.c fleetd/asks.h
tests_unit_test_asks_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_asks_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_asks_LDADD = raftstore/libschema.a base/libbase.a $(PROTOBUF_C_LIBS) $(CMOCKA_LIBS)
tests_unit_test_journal_entry_SOURCES = tests/unit/test-journal-entry.c fleetd/journal_entry.c fleetd/journal_entry.h
tests_unit_test_journal_entry_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_journal_entry_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_journal_entry_LDADD = base/libbase.a $(JANSSON_LIBS) $(CMOCKA_LIBS)
tests_unit_test_core_SOURCES = tests/unit/test-core.c tests/unit/core-world.c tests/unit/core-world.h
tests_unit_test_core_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_LDADD = $(CORE_TEST_LIBS)
check_PROGRAMS += tests/unit/test-joining
TESTS += tests/unit/test-joining
tests_unit_test_joining_SOURCES = tests/unit/test-joining.c \
	fleetd/gate.c fleetd/gate.h fleetd/joiner.c fleetd/joiner.h
tests_unit_test_joining_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_joining_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_joining_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
tests_unit_test_core_change_SOURCES = tests/unit/test-core-change.c tests/unit/core-world.c tests/unit/core-world.h
tests_unit_test_core_change_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_change_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_change_LDADD = $(CORE_TEST_LIBS)
check_PROGRAMS += tests/unit/test-core-shutdown
TESTS += tests/unit/test-core-shutdown
tests_unit_test_core_shutdown_SOURCES = tests/unit/test-core-shutdown.c tests/unit/core-world.c tests/unit/core-world.h
tests_unit_test_core_shutdown_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_shutdown_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_shutdown_LDADD = $(CORE_TEST_LIBS)
check_PROGRAMS += tests/unit/test-going-down tests/unit/test-prober
TESTS += tests/unit/test-going-down tests/unit/test-prober
tests_unit_test_going_down_SOURCES = tests/unit/test-going-down.c fleetd/going_down.c fleetd/going_down.h
tests_unit_test_going_down_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_going_down_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_going_down_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
tests_unit_test_prober_SOURCES = tests/unit/test-prober.c fleetd/prober.c fleetd/prober.h
tests_unit_test_prober_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_prober_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_prober_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
tests_unit_test_voters_SOURCES = tests/unit/test-voters.c
tests_unit_test_voters_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_voters_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_voters_LDADD = $(CORE_TEST_LIBS)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-messages
TESTS += tests/unit/test-messages
tests_unit_test_messages_SOURCES = tests/unit/test-messages.c fleetd/patience.c fleetd/patience.h
tests_unit_test_messages_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS) -DSOURCE_DIR='"$(top_srcdir)"'
tests_unit_test_messages_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_messages_LDADD = base/libbase.a $(UV_LIBS) $(SYSTEMD_LIBS) $(CMOCKA_LIBS)
endif

sbin_PROGRAMS += fleetd/fleetd
fleetd_fleetd_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS) $(JANSSON_CFLAGS) \
	$(INIH_CFLAGS)
fleetd_fleetd_SOURCES = \
	fleetd/main.c \
	fleetd/admission.c \
	fleetd/asks.c fleetd/asks.h \
	fleetd/certifier.c fleetd/certifier.h \
	fleetd/cluster.c \
	fleetd/credentials.c fleetd/credentials.h \
	fleetd/data_lock.c fleetd/data_lock.h \
	fleetd/daemon.c fleetd/daemon.h fleetd/daemon_private.h \
	fleetd/downlink.c fleetd/downlink.h \
	fleetd/dump.c \
	fleetd/farewell.c fleetd/farewell.h \
	fleetd/going_down.c fleetd/going_down.h \
	fleetd/host_query.c fleetd/host_query.h \
	fleetd/founding.c fleetd/founding.h \
	fleetd/gate.c fleetd/gate.h \
	fleetd/hosting.c \
	fleetd/journal_entry.c fleetd/journal_entry.h \
	fleetd/joiner.c fleetd/joiner.h \
	fleetd/leading.c \
	fleetd/leading_lease.c \
	fleetd/leading_level.c \
	fleetd/leading_place.c \
	fleetd/place.c \
	fleetd/leading_voters.c \
	fleetd/logind.c fleetd/logind.h \
	fleetd/member.c fleetd/member.h \
	fleetd/membership.c fleetd/membership.h \
	fleetd/observing.c \
	fleetd/prober.c fleetd/prober.h \
	fleetd/proving.c \
	fleetd/messages.h \
	fleetd/patience.c fleetd/patience.h \
	fleetd/recovery.c fleetd/recovery.h \
	fleetd/reload.c \
	fleetd/removal.c fleetd/removal.h \
	fleetd/renewal.c fleetd/renewal.h \
	fleetd/unit_journal.c fleetd/unit_journal.h \
	fleetd/unit_status.c fleetd/unit_status.h \
	fleetd/uplink.c fleetd/uplink.h
fleetd_fleetd_LDADD = \
	fleetd/libapi.a $(CORE_LIBS) fleetd/libagent.a fleetd/libhttp.a fleetd/libaccess.a fleetd/libconfig.a backup/libbackup.a $(RAFTSTORE_LIBS) \
	$(PKI_LIBS) $(MICROHTTPD_LIBS) $(JANSSON_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)

# Commands that the registry takes, and what the core makes of it. Built twice, see units/automake.mk.
check_PROGRAMS += tests/fuzz/fuzz-registry-replay
TESTS += tests/fuzz/fuzz-registry-replay
tests_fuzz_fuzz_registry_replay_SOURCES = tests/fuzz/fuzz-registry.c tests/fuzz/fuzz.h tests/fuzz/snapshot.c tests/fuzz/snapshot.h tests/fuzz/replay.c
tests_fuzz_fuzz_registry_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/registry"'
tests_fuzz_fuzz_registry_replay_LDADD = fleetd/libcore.a constraints/libconstraints.a raftstore/libraftstore.a raftstore/libschema.a \
	$(UNITS_LIBS) $(PROTOBUF_C_LIBS)
EXTRA_DIST += tests/fuzz/corpus/registry
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-registry
tests_fuzz_fuzz_registry_SOURCES = tests/fuzz/fuzz-registry.c tests/fuzz/snapshot.c tests/fuzz/snapshot.h
tests_fuzz_fuzz_registry_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_fuzz_fuzz_registry_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_registry_LDADD = fleetd/libcore.a constraints/libconstraints.a raftstore/libraftstore.a raftstore/libschema.a \
	$(UNITS_LIBS) $(PROTOBUF_C_LIBS)
endif
