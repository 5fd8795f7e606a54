# Small things that every folder uses. libc only.
noinst_LIBRARIES += base/libbase.a
base_libbase_a_SOURCES = \
	base/alloc.c base/alloc.h \
	base/cleanup.h \
	base/err.c base/err.h \
	base/file.c base/file.h \
	base/hex.c base/hex.h \
	base/ini_limits.c base/ini_limits.h \
	base/log.c base/log.h \
	base/origin.c base/origin.h \
	base/str.c base/str.h \
	base/times.c base/times.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-base
TESTS += tests/unit/test-base
tests_unit_test_base_SOURCES = tests/unit/test-base.c
tests_unit_test_base_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_base_LDADD = base/libbase.a $(CMOCKA_LIBS)
endif
