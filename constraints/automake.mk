# Which unit goes on which machine. Pure: uses base/ and units/.
noinst_LIBRARIES += constraints/libconstraints.a
constraints_libconstraints_a_SOURCES = \
	constraints/cluster.c constraints/cluster.h \
	constraints/fit.c constraints/fit.h \
	constraints/plan.c constraints/plan.h \
	constraints/planner.c constraints/planner.h

CONSTRAINTS_LIBS = constraints/libconstraints.a $(UNITS_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-plan tests/unit/test-golden
TESTS += tests/unit/test-plan tests/unit/test-golden
tests_unit_test_plan_SOURCES = tests/unit/test-plan.c
tests_unit_test_plan_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_plan_LDADD = $(CONSTRAINTS_LIBS) $(CMOCKA_LIBS)
tests_unit_test_golden_SOURCES = tests/unit/test-golden.c
tests_unit_test_golden_CPPFLAGS = $(AM_CPPFLAGS) -DGOLDEN='"$(srcdir)/tests/golden"'
tests_unit_test_golden_LDADD = $(CONSTRAINTS_LIBS)
endif
EXTRA_DIST += tests/golden
