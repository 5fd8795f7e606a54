# The file that a backup is: written and checked by fleetctl, read by fleetd. Uses base/ and, for SHA-256, nettle.
noinst_LIBRARIES += backup/libbackup.a
backup_libbackup_a_CPPFLAGS = $(AM_CPPFLAGS) $(NETTLE_CFLAGS)
backup_libbackup_a_SOURCES = backup/file.c backup/file.h

BACKUP_LIBS = backup/libbackup.a base/libbase.a $(NETTLE_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-backup-file
TESTS += tests/unit/test-backup-file
tests_unit_test_backup_file_SOURCES = tests/unit/test-backup-file.c
tests_unit_test_backup_file_CPPFLAGS = $(AM_CPPFLAGS) $(NETTLE_CFLAGS)
tests_unit_test_backup_file_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_backup_file_LDADD = $(BACKUP_LIBS) $(CMOCKA_LIBS)
endif
