# The unit tests of a folder stand in that folder's automake.mk; what crosses folders stands here.
TEST_LIBS = $(CMOCKA_LIBS)

# The lab: hosts with real systemd on one machine, and the scenarios that run there (tests/lab/README.md).
EXTRA_DIST += tests/valgrind.supp
EXTRA_DIST += tests/lab/README.md $(LAB_FILES) tools/check tools/demo tools/fuzz tools/lab-host tools/lint tools/setup
LAB_FILES = \
	tests/lab/demo.py \
	tests/lab/disks.py \
	tests/lab/fleet.py \
	tests/lab/host.py \
	tests/lab/janitor.py \
	tests/lab/kernel.py \
	tests/lab/lab.py \
	tests/lab/run.py \
	tests/lab/supervisor.py \
	tests/lab/test_adoption.py \
	tests/lab/test_agent.py \
	tests/lab/test_api.py \
	tests/lab/test_daemon.py \
	tests/lab/test_disk.py \
	tests/lab/test_errors.py \
	tests/lab/test_failover.py \
	tests/lab/test_lab.py \
	tests/lab/test_placement.py \
	tests/lab/test_remote.py \
	tests/lab/test_scheduling.py \
	tests/lab/test_speed.py \
	tests/lab/test_story.py \
	tests/lab/test_units.py \
	tests/lab/testing.py \
	tests/lab/witness.py
