# The client. All but main() is a library, so that tests can reach it. Uses base/ and units/ only.
noinst_LIBRARIES += fleetctl/libfleetctl.a
fleetctl_libfleetctl_a_CPPFLAGS = $(AM_CPPFLAGS) $(CURL_CFLAGS) $(JANSSON_CFLAGS) $(NETTLE_CFLAGS)
fleetctl_libfleetctl_a_SOURCES = \
	fleetctl/api.c fleetctl/api.h \
	fleetctl/certificates.c fleetctl/certificates.h \
	fleetctl/change.c fleetctl/change.h \
	fleetctl/creation.c fleetctl/creation.h \
	fleetctl/ctl.c fleetctl/ctl.h \
	fleetctl/endpoint.c fleetctl/endpoint.h \
	fleetctl/journal_line.c fleetctl/journal_line.h \
	fleetctl/listing.c fleetctl/listing.h \
	fleetctl/machine.c fleetctl/machine.h \
	fleetctl/members.h \
	fleetctl/options.c fleetctl/options.h \
	fleetctl/output.c fleetctl/output.h \
	fleetctl/source.c fleetctl/source.h \
	fleetctl/ssh.c fleetctl/ssh.h \
	fleetctl/stored.c fleetctl/stored.h \
	fleetctl/tunnel.c fleetctl/tunnel.h \
	fleetctl/verbs.c fleetctl/verbs.h \
	fleetctl/verb-backup.c \
	fleetctl/verb-cat.c \
	fleetctl/verb-client-cert.c \
	fleetctl/verb-fd-forward.c \
	fleetctl/verb-help.c \
	fleetctl/verb-is-active.c \
	fleetctl/verb-join.c \
	fleetctl/verb-join-token.c \
	fleetctl/verb-journal.c \
	fleetctl/verb-leave.c \
	fleetctl/verb-list-machines.c \
	fleetctl/verb-list-units.c \
	fleetctl/verb-machines.c \
	fleetctl/verb-members.c \
	fleetctl/verb-restart.c \
	fleetctl/verb-rotate-authority.c \
	fleetctl/verb-settings.c \
	fleetctl/verb-ssh.c \
	fleetctl/verb-status.c \
	fleetctl/verb-stop.c \
	fleetctl/verb-submit.c \
	fleetctl/verb-verify.c \
	fleetctl/wait.c fleetctl/wait.h

FLEETCTL_LIBS = fleetctl/libfleetctl.a backup/libbackup.a $(UNITS_LIBS) $(PKI_LIBS) $(CURL_LIBS) $(JANSSON_LIBS)

bin_PROGRAMS += fleetctl/fleetctl
fleetctl_fleetctl_SOURCES = fleetctl/main.c
fleetctl_fleetctl_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
fleetctl_fleetctl_LDADD = $(FLEETCTL_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-ctl-args tests/unit/test-ctl-output tests/unit/test-ctl-ssh
TESTS += tests/unit/test-ctl-args tests/unit/test-ctl-output tests/unit/test-ctl-ssh
tests_unit_test_ctl_args_SOURCES = tests/unit/test-ctl-args.c
tests_unit_test_ctl_args_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_ctl_args_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_ctl_args_LDADD = $(FLEETCTL_LIBS) $(CMOCKA_LIBS)
tests_unit_test_ctl_output_SOURCES = tests/unit/test-ctl-output.c
tests_unit_test_ctl_output_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_ctl_output_LDADD = $(FLEETCTL_LIBS) $(CMOCKA_LIBS)
tests_unit_test_ctl_ssh_SOURCES = tests/unit/test-ctl-ssh.c
tests_unit_test_ctl_ssh_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_ctl_ssh_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_ctl_ssh_LDADD = $(FLEETCTL_LIBS) $(CMOCKA_LIBS)
endif

# The program itself, against a pretend fleetd.
TESTS += tests/ctl/test-ctl.sh
EXTRA_DIST += tests/ctl/test-ctl.sh tests/ctl/test_ctl.py tests/ctl/test_access.py tests/ctl/test_completions.py tests/ctl/test_membership.py tests/ctl/test_remote.py \
	tests/ctl/test_rules.py tests/ctl/fake_fleetd.py tests/ctl/fake_ssh.py
