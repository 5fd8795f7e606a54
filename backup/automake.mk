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

# Built twice, see units/automake.mk.
check_PROGRAMS += tests/fuzz/fuzz-backup-replay
TESTS += tests/fuzz/fuzz-backup-replay
tests_fuzz_fuzz_backup_replay_SOURCES = tests/fuzz/fuzz-backup.c tests/fuzz/fuzz.h tests/fuzz/file.c tests/fuzz/file.h \
	tests/fuzz/replay.c
tests_fuzz_fuzz_backup_replay_CPPFLAGS = $(AM_CPPFLAGS) $(NETTLE_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/backup"'
tests_fuzz_fuzz_backup_replay_LDADD = $(BACKUP_LIBS)
EXTRA_DIST += tests/fuzz/corpus/backup
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-backup
tests_fuzz_fuzz_backup_SOURCES = tests/fuzz/fuzz-backup.c tests/fuzz/file.c tests/fuzz/file.h
tests_fuzz_fuzz_backup_CPPFLAGS = $(AM_CPPFLAGS) $(NETTLE_CFLAGS)
tests_fuzz_fuzz_backup_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_backup_LDADD = $(BACKUP_LIBS)
endif
