# Keys, certificates and join tokens, on GnuTLS; base64 by nettle.
noinst_LIBRARIES += pki/libpki.a
pki_libpki_a_CPPFLAGS = $(AM_CPPFLAGS) $(GNUTLS_CFLAGS) $(NETTLE_CFLAGS)
pki_libpki_a_SOURCES = \
	pki/pki.h pki/private.h \
	pki/certificate.c \
	pki/key.c \
	pki/name.c \
	pki/pem.c \
	pki/proof.c \
	pki/read.c \
	pki/request.c \
	pki/token.c \
	pki/verify.c

PKI_LIBS = pki/libpki.a base/libbase.a $(GNUTLS_LIBS) $(NETTLE_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-pki tests/unit/test-pki-verify
TESTS += tests/unit/test-pki tests/unit/test-pki-verify
tests_unit_test_pki_SOURCES = tests/unit/test-pki.c tests/unit/pki-forge.c tests/unit/pki-forge.h
tests_unit_test_pki_CPPFLAGS = $(AM_CPPFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_pki_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_pki_LDADD = $(PKI_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pki_verify_SOURCES = tests/unit/test-pki-verify.c tests/unit/pki-forge.c tests/unit/pki-forge.h
tests_unit_test_pki_verify_CPPFLAGS = $(AM_CPPFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_pki_verify_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_pki_verify_LDADD = $(PKI_LIBS) $(CMOCKA_LIBS)
endif

# Every fuzz target is built twice, see units/automake.mk.
PKI_REPLAYS = \
	tests/fuzz/fuzz-certificate-replay \
	tests/fuzz/fuzz-certificate-request-replay \
	tests/fuzz/fuzz-join-token-replay \
	tests/fuzz/fuzz-pem-replay
check_PROGRAMS += $(PKI_REPLAYS)
TESTS += $(PKI_REPLAYS)
tests_fuzz_fuzz_certificate_replay_SOURCES = tests/fuzz/fuzz-certificate.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_certificate_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/certificate"'
tests_fuzz_fuzz_certificate_replay_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_certificate_request_replay_SOURCES = \
	tests/fuzz/fuzz-certificate-request.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_certificate_request_replay_CPPFLAGS = \
	$(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/certificate-request"'
tests_fuzz_fuzz_certificate_request_replay_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_join_token_replay_SOURCES = tests/fuzz/fuzz-join-token.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_join_token_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/join-token"'
tests_fuzz_fuzz_join_token_replay_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_pem_replay_SOURCES = tests/fuzz/fuzz-pem.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_fuzz_pem_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/pem"'
tests_fuzz_fuzz_pem_replay_LDADD = $(PKI_LIBS)
EXTRA_DIST += tests/fuzz/corpus/certificate tests/fuzz/corpus/certificate-request tests/fuzz/corpus/join-token \
	tests/fuzz/corpus/pem
if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-certificate tests/fuzz/fuzz-certificate-request tests/fuzz/fuzz-join-token \
	tests/fuzz/fuzz-pem
tests_fuzz_fuzz_certificate_SOURCES = tests/fuzz/fuzz-certificate.c
tests_fuzz_fuzz_certificate_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_certificate_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_certificate_request_SOURCES = tests/fuzz/fuzz-certificate-request.c
tests_fuzz_fuzz_certificate_request_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_certificate_request_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_join_token_SOURCES = tests/fuzz/fuzz-join-token.c
tests_fuzz_fuzz_join_token_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_join_token_LDADD = $(PKI_LIBS)
tests_fuzz_fuzz_pem_SOURCES = tests/fuzz/fuzz-pem.c
tests_fuzz_fuzz_pem_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_pem_LDADD = $(PKI_LIBS)
endif
