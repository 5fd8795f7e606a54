# The unit tests of a folder stand in that folder's automake.mk; what crosses folders stands here.
TEST_LIBS = $(CMOCKA_LIBS)
