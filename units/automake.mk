# Unit names, unit files, [X-Fleet]. Pure: uses base/ and, for SHA-1, nettle.
noinst_LIBRARIES += units/libunits.a
units_libunits_a_CPPFLAGS = $(AM_CPPFLAGS) $(NETTLE_CFLAGS)
units_libunits_a_SOURCES = \
	units/file.c units/file.h \
	units/name.c units/name.h \
	units/requirements.c units/requirements.h \
	units/state.c units/state.h \
	units/text.c units/text.h

UNITS_LIBS = units/libunits.a base/libbase.a $(NETTLE_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-unit-name tests/unit/test-unit-file tests/unit/test-requirements
TESTS += tests/unit/test-unit-name tests/unit/test-unit-file tests/unit/test-requirements
tests_unit_test_unit_name_SOURCES = tests/unit/test-unit-name.c
tests_unit_test_unit_name_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_unit_name_LDADD = $(UNITS_LIBS) $(CMOCKA_LIBS)
tests_unit_test_unit_file_SOURCES = tests/unit/test-unit-file.c
tests_unit_test_unit_file_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_unit_file_LDADD = $(UNITS_LIBS) $(CMOCKA_LIBS)
tests_unit_test_requirements_SOURCES = tests/unit/test-requirements.c
tests_unit_test_requirements_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_requirements_LDADD = $(UNITS_LIBS) $(CMOCKA_LIBS)
endif

# Each fuzz target is built twice: with a plain driver that feeds it the files of its corpus, so that they are
# ordinary tests everywhere; and, with --enable-fuzz, with libFuzzer's.
UNITS_REPLAYS = \
	tests/fuzz/fuzz-unit-file-replay \
	tests/fuzz/fuzz-unit-name-replay \
	tests/fuzz/fuzz-glob-replay \
	tests/fuzz/fuzz-requirements-replay
check_PROGRAMS += $(UNITS_REPLAYS)
TESTS += $(UNITS_REPLAYS)
tests_fuzz_fuzz_unit_file_replay_SOURCES = tests/fuzz/fuzz-unit-file.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_unit_file_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/unit-file"'
tests_fuzz_fuzz_unit_file_replay_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_unit_name_replay_SOURCES = tests/fuzz/fuzz-unit-name.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_unit_name_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/unit-name"'
tests_fuzz_fuzz_unit_name_replay_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_requirements_replay_SOURCES = tests/fuzz/fuzz-requirements.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_requirements_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/requirements"'
tests_fuzz_fuzz_requirements_replay_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_glob_replay_SOURCES = tests/fuzz/fuzz-glob.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_glob_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/glob"'
tests_fuzz_fuzz_glob_replay_LDADD = $(UNITS_LIBS)
EXTRA_DIST += tests/fuzz/corpus/glob tests/fuzz/corpus/unit-file tests/fuzz/corpus/unit-name tests/fuzz/corpus/requirements

if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-unit-file tests/fuzz/fuzz-unit-name tests/fuzz/fuzz-glob tests/fuzz/fuzz-requirements
tests_fuzz_fuzz_unit_file_SOURCES = tests/fuzz/fuzz-unit-file.c
tests_fuzz_fuzz_unit_file_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_unit_file_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_unit_name_SOURCES = tests/fuzz/fuzz-unit-name.c
tests_fuzz_fuzz_unit_name_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_unit_name_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_glob_SOURCES = tests/fuzz/fuzz-glob.c
tests_fuzz_fuzz_glob_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_glob_LDADD = $(UNITS_LIBS)
tests_fuzz_fuzz_requirements_SOURCES = tests/fuzz/fuzz-requirements.c
tests_fuzz_fuzz_requirements_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_requirements_LDADD = $(UNITS_LIBS)
endif
