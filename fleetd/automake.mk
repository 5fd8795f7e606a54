# The daemon: the pure core, what every host does, what the leader does.
include fleetd/agent.mk
include fleetd/http.mk
include fleetd/api.mk
include fleetd/core_tests.mk

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

check_PROGRAMS += tests/unit/test-voters
TESTS += tests/unit/test-voters
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
check_PROGRAMS += tests/lab/forger
tests_lab_forger_SOURCES = tests/lab/forger.c
tests_lab_forger_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_lab_forger_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS)
check_PROGRAMS += tests/unit/test-downlink
TESTS += tests/unit/test-downlink
tests_unit_test_downlink_SOURCES = tests/unit/test-downlink.c tests/unit/port-world.c tests/unit/port-world.h \
	fleetd/downlink.c fleetd/downlink.h fleetd/asks.c fleetd/asks.h
tests_unit_test_downlink_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_downlink_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_downlink_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/test-uplink
TESTS += tests/unit/test-uplink
tests_unit_test_uplink_SOURCES = tests/unit/test-uplink.c tests/unit/port-world.c tests/unit/port-world.h \
	fleetd/uplink.c fleetd/uplink.h
tests_unit_test_uplink_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_uplink_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_uplink_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-joining
TESTS += tests/unit/test-joining
tests_unit_test_joining_SOURCES = tests/unit/test-joining.c \
	fleetd/gate.c fleetd/gate.h fleetd/joiner.c fleetd/joiner.h
tests_unit_test_joining_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_joining_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_joining_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-going-down tests/unit/test-prober tests/unit/test-proving tests/unit/test-recovery
TESTS += tests/unit/test-going-down tests/unit/test-prober tests/unit/test-proving tests/unit/test-recovery
tests_unit_test_going_down_SOURCES = tests/unit/test-going-down.c fleetd/going_down.c fleetd/going_down.h
tests_unit_test_going_down_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_going_down_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_going_down_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(CMOCKA_LIBS)
tests_unit_test_proving_SOURCES = tests/unit/test-proving.c $(CLUSTER_WORLD) fleetd/proving.c fleetd/member.c fleetd/member.h
tests_unit_test_proving_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(INIH_CFLAGS)
tests_unit_test_proving_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_proving_LDADD = fleetd/libapi.a $(RAFTSTORE_LIBS) $(PKI_LIBS) $(INIH_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test-admission tests/unit/test-leading-place tests/unit/test-place
TESTS += tests/unit/test-admission tests/unit/test-leading-place tests/unit/test-place
tests_unit_test_admission_SOURCES = tests/unit/test-admission.c tests/unit/fake-core.c $(CLUSTER_WORLD) \
	fleetd/admission.c
tests_unit_test_admission_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_admission_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_admission_LDADD = fleetd/libapi.a fleetd/libaccess.a fleetd/libconfig.a $(RAFTSTORE_LIBS) \
	$(PKI_LIBS) $(INIH_LIBS) $(CMOCKA_LIBS)
tests_unit_test_leading_place_SOURCES = tests/unit/test-leading-place.c fleetd/leading_place.c
tests_unit_test_leading_place_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_leading_place_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_leading_place_LDFLAGS = -Wl,--wrap=now_ms
tests_unit_test_leading_place_LDADD = base/libbase.a $(CMOCKA_LIBS)
tests_unit_test_place_SOURCES = tests/unit/test-place.c tests/unit/cluster-rest.c fleetd/cluster.c fleetd/place.c
tests_unit_test_place_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_place_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_place_LDFLAGS = -Wl,--wrap=now_ms
tests_unit_test_place_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_recovery_SOURCES = tests/unit/test-recovery.c $(CLUSTER_WORLD) tests/unit/store-node.c tests/unit/store-node.h \
	fleetd/recovery.c fleetd/recovery.h fleetd/member.c fleetd/member.h fleetd/data_lock.c fleetd/data_lock.h \
	fleetd/founding.c fleetd/founding.h fleetd/credentials.c fleetd/credentials.h
tests_unit_test_recovery_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(INIH_CFLAGS) \
	-DSTORE_1='"$(top_srcdir)/tests/data/store-1"'
tests_unit_test_recovery_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_recovery_LDADD = fleetd/libapi.a fleetd/libconfig.a backup/libbackup.a $(RAFTSTORE_LIBS) $(PKI_LIBS) \
	$(INIH_LIBS) $(CMOCKA_LIBS)
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
tests_unit_test_messages_LDFLAGS = -Wl,--wrap=now_ms
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

# What is said in sessions and by who joins. Built twice, see units/automake.mk.
# A leader without Raft or a network; and a host without either.
FUZZ_LEADER = tests/fuzz/fuzz.h tests/fuzz/authority.c tests/fuzz/authority.h tests/fuzz/conn.c tests/fuzz/conn.h \
	tests/fuzz/leader.c tests/fuzz/leader.h tests/fuzz/snapshot.c tests/fuzz/snapshot.h \
	fleetd/admission.c fleetd/asks.c fleetd/certifier.c fleetd/downlink.c fleetd/gate.c fleetd/leading.c fleetd/proving.c
FUZZ_HOST = tests/fuzz/fuzz.h tests/fuzz/authority.c tests/fuzz/authority.h tests/fuzz/conn.c tests/fuzz/conn.h \
	tests/fuzz/host.c tests/fuzz/host.h fleetd/credentials.c fleetd/member.c
FUZZ_SESSION_UP = tests/fuzz/fuzz-session-up.c $(FUZZ_LEADER)
FUZZ_JOIN_REQUEST = tests/fuzz/fuzz-join-request.c $(FUZZ_LEADER)
FUZZ_SESSION_DOWN = tests/fuzz/fuzz-session-down.c $(FUZZ_HOST) fleetd/hosting.c fleetd/renewal.c fleetd/uplink.c
FUZZ_JOIN_REPLY = tests/fuzz/fuzz-join-reply.c $(FUZZ_HOST) fleetd/founding.c fleetd/joiner.c fleetd/membership.c
FUZZ_WIRE_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS) $(JANSSON_CFLAGS) $(INIH_CFLAGS)
FUZZ_WIRE_LIBS = fleetd/libapi.a $(CORE_LIBS) fleetd/libagent.a fleetd/libaccess.a fleetd/libconfig.a $(RAFTSTORE_LIBS) \
	$(PKI_LIBS) $(JANSSON_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)
FUZZ_WIRE_REPLAYS = \
	tests/fuzz/fuzz-session-up-replay tests/fuzz/fuzz-session-down-replay \
	tests/fuzz/fuzz-join-request-replay tests/fuzz/fuzz-join-reply-replay \
	tests/fuzz/fuzz-member-replay
check_PROGRAMS += $(FUZZ_WIRE_REPLAYS)
TESTS += $(FUZZ_WIRE_REPLAYS)
tests_fuzz_fuzz_session_up_replay_SOURCES = $(FUZZ_SESSION_UP) tests/fuzz/replay.c
tests_fuzz_fuzz_session_up_replay_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/session-up"'
tests_fuzz_fuzz_session_up_replay_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_session_down_replay_SOURCES = $(FUZZ_SESSION_DOWN) tests/fuzz/replay.c
tests_fuzz_fuzz_session_down_replay_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/session-down"'
tests_fuzz_fuzz_session_down_replay_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_join_request_replay_SOURCES = $(FUZZ_JOIN_REQUEST) tests/fuzz/replay.c
tests_fuzz_fuzz_join_request_replay_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/join-request"'
tests_fuzz_fuzz_join_request_replay_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_join_reply_replay_SOURCES = $(FUZZ_JOIN_REPLY) tests/fuzz/replay.c
tests_fuzz_fuzz_join_reply_replay_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/join-reply"'
tests_fuzz_fuzz_join_reply_replay_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_member_replay_SOURCES = tests/fuzz/fuzz-member.c fleetd/member.c fleetd/member.h tests/fuzz/replay.c
tests_fuzz_fuzz_member_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(INIH_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/member"'
tests_fuzz_fuzz_member_replay_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(INIH_LIBS)
tests_fuzz_fuzz_session_down_replay_LDFLAGS = -Wl,--wrap=agent_is_informed
EXTRA_DIST += tests/fuzz/corpus/session-up tests/fuzz/corpus/session-down tests/fuzz/corpus/join-request \
	tests/fuzz/corpus/join-reply tests/fuzz/corpus/member
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-session-up tests/fuzz/fuzz-session-down tests/fuzz/fuzz-join-request tests/fuzz/fuzz-join-reply \
	tests/fuzz/fuzz-member
tests_fuzz_fuzz_session_up_SOURCES = $(FUZZ_SESSION_UP)
tests_fuzz_fuzz_session_up_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS)
tests_fuzz_fuzz_session_up_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_session_up_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_session_down_SOURCES = $(FUZZ_SESSION_DOWN)
tests_fuzz_fuzz_session_down_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS)
tests_fuzz_fuzz_session_down_LDFLAGS = -fsanitize=fuzzer -Wl,--wrap=agent_is_informed
tests_fuzz_fuzz_session_down_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_join_request_SOURCES = $(FUZZ_JOIN_REQUEST)
tests_fuzz_fuzz_join_request_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS)
tests_fuzz_fuzz_join_request_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_join_request_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_join_reply_SOURCES = $(FUZZ_JOIN_REPLY)
tests_fuzz_fuzz_join_reply_CPPFLAGS = $(FUZZ_WIRE_CPPFLAGS)
tests_fuzz_fuzz_join_reply_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_join_reply_LDADD = $(FUZZ_WIRE_LIBS)
tests_fuzz_fuzz_member_SOURCES = tests/fuzz/fuzz-member.c fleetd/member.c fleetd/member.h
tests_fuzz_fuzz_member_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(INIH_CFLAGS)
tests_fuzz_fuzz_member_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_member_LDADD = $(RAFTSTORE_LIBS) $(PKI_LIBS) $(INIH_LIBS)
endif
