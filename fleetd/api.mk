# The HTTP API: the host's side of it (router, metrics), and the leader's (all others).
noinst_LIBRARIES += fleetd/libapi.a
fleetd_libapi_a_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
fleetd_libapi_a_SOURCES = \
	fleetd/api.c fleetd/api.h fleetd/api_private.h \
	fleetd/api_access.c \
	fleetd/api_authority.c \
	fleetd/api_backup.c fleetd/api_backup.h \
	fleetd/api_batch.c \
	fleetd/api_clients.c \
	fleetd/api_change.c fleetd/api_change.h \
	fleetd/api_cycle.c \
	fleetd/api_discovery.c \
	fleetd/api_hosts.c \
	fleetd/api_json.c fleetd/api_json.h \
	fleetd/api_join_tokens.c \
	fleetd/api_level.c \
	fleetd/api_linger.c \
	fleetd/api_machines.c \
	fleetd/api_members.c \
	fleetd/api_manage.c \
	fleetd/api_metadata.c \
	fleetd/api_page.c fleetd/api_page.h \
	fleetd/api_removal.c \
	fleetd/api_route.c \
	fleetd/api_settings.c \
	fleetd/api_state.c \
	fleetd/api_units.c \
	fleetd/api_wait.c fleetd/api_wait.h \
	fleetd/authority.c fleetd/authority.h \
	fleetd/core/rotation.c fleetd/core/rotation.h \
	fleetd/core/peers.c fleetd/core/peers.h \
	fleetd/metrics.c fleetd/metrics.h \
	fleetd/router.c fleetd/router.h

API_LIBS = fleetd/libapi.a fleetd/libcore.a fleetd/libaccess.a raftstore/libraftstore.a raftstore/libschema.a units/libunits.a $(PKI_LIBS) \
	$(JANSSON_LIBS) $(PROTOBUF_C_LIBS)
API_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)

if HAVE_CMOCKA
API_TESTS = tests/unit/test-access tests/unit/test-api tests/unit/test-api-membership tests/unit/test-api-hosts \
	tests/unit/test-api-wait tests/unit/test-api-wire \
	tests/unit/test-metrics tests/unit/test-registry tests/unit/test-registry-level tests/unit/test-registry-security \
	tests/unit/test-credentials tests/unit/test-rotation tests/unit/test-peers
check_PROGRAMS += $(API_TESTS)
TESTS += $(API_TESTS)
CLUSTER_WORLD = tests/unit/cluster-world.c tests/unit/cluster-world.h
API_WORLD = tests/unit/api-world.c tests/unit/api-world.h tests/unit/fake-core.c tests/unit/fake-core.h
tests_unit_test_access_SOURCES = tests/unit/test-access.c $(API_WORLD)
tests_unit_test_access_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_access_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_access_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_api_SOURCES = tests/unit/test-api.c $(API_WORLD)
tests_unit_test_api_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_api_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_api_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_api_membership_SOURCES = tests/unit/test-api-membership.c $(API_WORLD)
tests_unit_test_api_membership_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_api_membership_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_api_membership_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_api_hosts_SOURCES = tests/unit/test-api-hosts.c $(API_WORLD)
tests_unit_test_api_hosts_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_api_hosts_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_api_hosts_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_api_wait_SOURCES = tests/unit/test-api-wait.c $(API_WORLD)
tests_unit_test_api_wait_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_api_wait_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_api_wait_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_api_wire_SOURCES = tests/unit/test-api-wire.c tests/unit/wire-world.c tests/unit/wire-world.h $(API_WORLD)
tests_unit_test_api_wire_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_api_wire_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_api_wire_LDADD = $(API_LIBS) $(HTTP_LIBS) $(CMOCKA_LIBS)
tests_unit_test_metrics_SOURCES = tests/unit/test-metrics.c
tests_unit_test_metrics_CPPFLAGS = $(API_CPPFLAGS)
tests_unit_test_metrics_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_metrics_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_registry_SOURCES = tests/unit/test-registry.c
tests_unit_test_registry_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) -DSOURCE_DIR='"$(top_srcdir)"'
tests_unit_test_registry_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_registry_LDADD = raftstore/libraftstore.a raftstore/libschema.a units/libunits.a base/libbase.a \
	$(PROTOBUF_C_LIBS) $(NETTLE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_registry_level_SOURCES = tests/unit/test-registry-level.c
tests_unit_test_registry_level_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) -DSOURCE_DIR='"$(top_srcdir)"'
tests_unit_test_registry_level_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_registry_level_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_registry_security_SOURCES = tests/unit/test-registry-security.c
tests_unit_test_registry_security_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_registry_security_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_registry_security_LDADD = $(tests_unit_test_registry_LDADD)
tests_unit_test_credentials_SOURCES = tests/unit/test-credentials.c fleetd/credentials.c fleetd/credentials.h \
	fleetd/founding.c fleetd/founding.h
tests_unit_test_credentials_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_credentials_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_credentials_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_peers_SOURCES = tests/unit/test-peers.c $(CLUSTER_WORLD)
tests_unit_test_peers_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_peers_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_peers_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
tests_unit_test_rotation_SOURCES = tests/unit/test-rotation.c $(CLUSTER_WORLD)
tests_unit_test_rotation_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_rotation_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_rotation_LDADD = $(API_LIBS) $(CMOCKA_LIBS)
endif

check_PROGRAMS += tests/fuzz/fuzz-api-replay
TESTS += tests/fuzz/fuzz-api-replay
tests_fuzz_fuzz_api_replay_SOURCES = tests/fuzz/fuzz-api.c tests/fuzz/replay.c tests/fuzz/fuzz.h \
	tests/unit/fake-core.c tests/unit/fake-core.h
tests_fuzz_fuzz_api_replay_CPPFLAGS = $(API_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/api"'
tests_fuzz_fuzz_api_replay_LDADD = $(API_LIBS)
EXTRA_DIST += tests/fuzz/corpus/api

if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-api
tests_fuzz_fuzz_api_SOURCES = tests/fuzz/fuzz-api.c tests/unit/fake-core.c
tests_fuzz_fuzz_api_CPPFLAGS = $(API_CPPFLAGS)
tests_fuzz_fuzz_api_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_api_LDADD = $(API_LIBS)
endif
