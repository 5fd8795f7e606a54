# The unit tests of a folder stand in that folder's automake.mk; what crosses folders stands here.
TEST_LIBS = $(CMOCKA_LIBS)

# The simulator: the daemon's own objects, with the pretences of tests/sim in the place of what touches the world.
if HAVE_CMOCKA
check_PROGRAMS += tests/sim/test-sim
TESTS += tests/sim/test-sim
tests_sim_test_sim_SOURCES = \
	tests/sim/test-sim.c tests/sim/sim.h \
	tests/sim/sim.c \
	tests/sim/sim-consensus.c \
	tests/sim/sim-host.c \
	tests/sim/sim-keeper.c \
	tests/sim/sim-laws.c \
	tests/sim/sim-members.c \
	tests/sim/sim-menu.c \
	tests/sim/sim-message.c \
	tests/sim/sim-net.c \
	tests/sim/sim-systemd.c tests/sim/sim-systemd.h \
	tests/sim/sim-tmpfs.c \
	tests/sim/sim-uv.c \
	fleetd/admission.c \
	fleetd/certifier.c \
	fleetd/cluster.c \
	fleetd/daemon.c \
	fleetd/asks.c \
	fleetd/downlink.c \
	fleetd/farewell.c \
	fleetd/founding.c \
	fleetd/gate.c \
	fleetd/going_down.c \
	fleetd/hosting.c \
	fleetd/joiner.c \
	fleetd/leading.c \
	fleetd/leading_lease.c \
	fleetd/leading_level.c \
	fleetd/leading_place.c \
	fleetd/leading_voters.c \
	fleetd/membership.c \
	fleetd/observing.c \
	fleetd/place.c \
	fleetd/proving.c \
	fleetd/removal.c \
	fleetd/renewal.c \
	fleetd/reload.c \
	fleetd/uplink.c
tests_sim_test_sim_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(SYSTEMD_CFLAGS) $(JANSSON_CFLAGS) \
	$(INIH_CFLAGS)
tests_sim_test_sim_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -O2
tests_sim_test_sim_LDFLAGS = \
	-Wl,--wrap=now_ms -Wl,--wrap=wall_ms -Wl,--wrap=getrandom -Wl,--wrap=downlink_send \
	-Wl,--wrap=config_load_strict -Wl,--wrap=_exit
# Neither libuv nor libsystemd: a function that nobody pretends is noticed here.
tests_sim_test_sim_LDADD = \
	fleetd/libapi.a $(CORE_LIBS) fleetd/libagent.a fleetd/libaccess.a fleetd/libconfig.a raftstore/libraftstore.a \
	raftstore/libschema.a units/libunits.a $(PKI_LIBS) $(JANSSON_LIBS) $(INIH_LIBS) $(PROTOBUF_C_LIBS) $(CMOCKA_LIBS)
endif
EXTRA_DIST += tests/valgrind.supp tests/valgrind-store.supp tests/unit/deadline.h tests/unit/under-valgrind.h
EXTRA_DIST += tests/fuzz/README.md tests/sim/README.md tests/data

# The lab: hosts with real systemd on one machine, and the scenarios that run there (tests/lab/README.md).
EXTRA_DIST += tests/lab/README.md tests/lab/faults.c $(LAB_FILES) tools/check tools/demo tools/fuzz tools/lab-host tools/lint tools/setup
LAB_FILES = \
	tests/lab/demo.py \
	tests/lab/breath.py \
	tests/lab/disks.py \
	tests/lab/faults.py \
	tests/lab/fleet.py \
	tests/lab/flood.py \
	tests/lab/host.py \
	tests/lab/impostor.py \
	tests/lab/janitor.py \
	tests/lab/kernel.py \
	tests/lab/lab.py \
	tests/lab/patience.py \
	tests/lab/run.py \
	tests/lab/sanitizers.py \
	tests/lab/supervisor.py \
	tests/lab/fleet_peer.py \
	tests/lab/test_access.py \
	tests/lab/test_addresses.py \
	tests/lab/test_adoption.py \
	tests/lab/test_agent.py \
	tests/lab/test_api.py \
	tests/lab/test_certificates.py \
	tests/lab/test_chaos.py \
	tests/lab/test_clones.py \
	tests/lab/test_daemon.py \
	tests/lab/test_disk.py \
	tests/lab/test_errors.py \
	tests/lab/test_failover.py \
	tests/lab/test_flood.py \
	tests/lab/test_growing.py \
	tests/lab/test_hostverbs.py \
	tests/lab/test_impostor.py \
	tests/lab/test_lab.py \
	tests/lab/test_joining.py \
	tests/lab/test_leases.py \
	tests/lab/test_ledger.py \
	tests/lab/test_liveness.py \
	tests/lab/test_machines.py \
	tests/lab/test_packaging.py \
	tests/lab/test_placement.py \
	tests/lab/test_recovery.py \
	tests/lab/test_remote.py \
	tests/lab/test_scheduling.py \
	tests/lab/test_settings.py \
	tests/lab/test_shutdown.py \
	tests/lab/test_speed.py \
	tests/lab/test_story.py \
	tests/lab/test_units.py \
	tests/lab/test_versions.py \
	tests/lab/test_voters.py \
	tests/lab/testing.py \
	tests/lab/witness.py

# Loaded into fleetd by LD_PRELOAD. Without the sanitizers: they want to be loaded first.
check_DATA = tests/lab/faults.so
CLEANFILES += tests/lab/faults.so
tests/lab/faults.so: tests/lab/faults.c
	$(AM_V_CC)$(MKDIR_P) $(@D) && $(CC) -std=gnu11 -O1 $(WARN_CFLAGS) -D_GNU_SOURCE -shared -fPIC -o $@ $(top_srcdir)/tests/lab/faults.c -ldl
