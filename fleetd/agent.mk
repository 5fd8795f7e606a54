# The agent: makes this host's systemd run the host's share of units. Its decisions (core/agent_plan) are pure.
noinst_LIBRARIES += fleetd/libagent.a
fleetd_libagent_a_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS)
fleetd_libagent_a_SOURCES = \
	fleetd/agent.c fleetd/agent.h \
	fleetd/agent_dropin.c fleetd/agent_dropin.h \
	fleetd/agent_files.c fleetd/agent_files.h \
	fleetd/agent_internal.h \
	fleetd/agent_lease.c fleetd/agent_lease.h \
	fleetd/agent_record.c fleetd/agent_record.h \
	fleetd/agent_signals.c \
	fleetd/agent_step.c \
	fleetd/agent_systemd.c \
	fleetd/agent_unit.c \
	fleetd/agent_why.c \
	fleetd/bus.c fleetd/bus.h \
	fleetd/lease_page.c fleetd/lease_page.h \
	fleetd/core/agent_plan.c fleetd/core/agent_plan.h

AGENT_LIBS = fleetd/libagent.a $(UNITS_LIBS) $(UV_LIBS) $(SYSTEMD_LIBS)

# Keeps the lease that units with OnDisconnect=stop are bound to, without fleetd.
libexec_PROGRAMS += fleetd/fleet-lease
fleetd_fleet_lease_SOURCES = fleetd/lease_keeper.c fleetd/lease_page.c fleetd/lease_page.h
fleetd_fleet_lease_CPPFLAGS = $(AM_CPPFLAGS) $(SYSTEMD_CFLAGS)
fleetd_fleet_lease_LDADD = base/libbase.a $(SYSTEMD_LIBS)

# Drives the agent by hand, inside a host of the lab.
check_PROGRAMS += tests/lab/agent-probe
tests_lab_agent_probe_SOURCES = tests/lab/agent-probe.c
tests_lab_agent_probe_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS)
tests_lab_agent_probe_LDADD = $(AGENT_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-agent-plan tests/unit/test-agent-files tests/unit/test-agent-record tests/unit/test-agent-lease \
	tests/unit/test-agent-unit
TESTS += tests/unit/test-agent-plan tests/unit/test-agent-files tests/unit/test-agent-record tests/unit/test-agent-lease \
	tests/unit/test-agent-unit
tests_unit_test_agent_files_SOURCES = tests/unit/test-agent-files.c
tests_unit_test_agent_files_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_agent_files_LDADD = $(AGENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_agent_record_SOURCES = tests/unit/test-agent-record.c
tests_unit_test_agent_record_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_agent_record_LDADD = $(AGENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_agent_lease_SOURCES = tests/unit/test-agent-lease.c
tests_unit_test_agent_lease_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS)
tests_unit_test_agent_lease_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_agent_lease_LDADD = $(AGENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_agent_unit_SOURCES = tests/unit/test-agent-unit.c
tests_unit_test_agent_unit_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS)
tests_unit_test_agent_unit_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_agent_unit_LDADD = $(AGENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_agent_plan_SOURCES = tests/unit/test-agent-plan.c
tests_unit_test_agent_plan_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_agent_plan_LDADD = $(AGENT_LIBS) $(CMOCKA_LIBS)
endif

# Fuzz targets are built twice, see units/automake.mk.
check_PROGRAMS += tests/fuzz/fuzz-agent-record-replay
TESTS += tests/fuzz/fuzz-agent-record-replay
tests_fuzz_fuzz_agent_record_replay_SOURCES = tests/fuzz/fuzz-agent-record.c tests/fuzz/fuzz.h tests/fuzz/file.c tests/fuzz/file.h tests/fuzz/replay.c
tests_fuzz_fuzz_agent_record_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/agent-record"'
tests_fuzz_fuzz_agent_record_replay_LDADD = $(AGENT_LIBS)
EXTRA_DIST += tests/fuzz/corpus/agent-record
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-agent-record
tests_fuzz_fuzz_agent_record_SOURCES = tests/fuzz/fuzz-agent-record.c tests/fuzz/file.c tests/fuzz/file.h
tests_fuzz_fuzz_agent_record_CPPFLAGS = $(AM_CPPFLAGS)
tests_fuzz_fuzz_agent_record_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_agent_record_LDADD = $(AGENT_LIBS)
endif
