# The core's tests, one program for each theme. They share a small world, which is compiled once.
if HAVE_CMOCKA
check_LIBRARIES += tests/unit/libcore-world.a
tests_unit_libcore_world_a_SOURCES = tests/unit/core-world.c tests/unit/core-world.h
tests_unit_libcore_world_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_libcore_world_a_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)

CORE_TESTS = tests/unit/test-core-chance \
	tests/unit/test-core-change \
	tests/unit/test-core-costs \
	tests/unit/test-core-decisions \
	tests/unit/test-core-drain \
	tests/unit/test-core-failing \
	tests/unit/test-core-hung \
	tests/unit/test-core-leases \
	tests/unit/test-core-moving \
	tests/unit/test-core-sessions \
	tests/unit/test-core-shutdown \
	tests/unit/test-core-silence \
	tests/unit/test-core-status
check_PROGRAMS += $(CORE_TESTS)
TESTS += $(CORE_TESTS)
tests_unit_test_core_chance_SOURCES = tests/unit/test-core-chance.c
tests_unit_test_core_chance_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_chance_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_chance_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_change_SOURCES = tests/unit/test-core-change.c
tests_unit_test_core_change_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_change_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_change_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_costs_SOURCES = tests/unit/test-core-costs.c
tests_unit_test_core_costs_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_costs_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_costs_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_decisions_SOURCES = tests/unit/test-core-decisions.c
tests_unit_test_core_decisions_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_decisions_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_decisions_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_drain_SOURCES = tests/unit/test-core-drain.c
tests_unit_test_core_drain_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_drain_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_drain_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_failing_SOURCES = tests/unit/test-core-failing.c
tests_unit_test_core_failing_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_failing_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_failing_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_hung_SOURCES = tests/unit/test-core-hung.c
tests_unit_test_core_hung_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_hung_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_hung_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_leases_SOURCES = tests/unit/test-core-leases.c
tests_unit_test_core_leases_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_leases_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_leases_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_moving_SOURCES = tests/unit/test-core-moving.c
tests_unit_test_core_moving_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_moving_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_moving_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_sessions_SOURCES = tests/unit/test-core-sessions.c
tests_unit_test_core_sessions_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_sessions_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_sessions_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_shutdown_SOURCES = tests/unit/test-core-shutdown.c
tests_unit_test_core_shutdown_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_shutdown_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_shutdown_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_silence_SOURCES = tests/unit/test-core-silence.c
tests_unit_test_core_silence_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_silence_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_silence_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
tests_unit_test_core_status_SOURCES = tests/unit/test-core-status.c
tests_unit_test_core_status_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_unit_test_core_status_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_core_status_LDADD = tests/unit/libcore-world.a $(CORE_TEST_LIBS)
endif
