# The HTTP server, and what fleetd reads at its start: configuration, command line, identity, journal.
# Who may do what, and what the journal hears of it: for the HTTP server and the API.
noinst_LIBRARIES += fleetd/libaccess.a
fleetd_libaccess_a_SOURCES = fleetd/access.c fleetd/access.h fleetd/audit.c fleetd/audit.h
fleetd_libaccess_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)

noinst_LIBRARIES += fleetd/libhttp.a fleetd/libconfig.a

fleetd_libhttp_a_SOURCES = fleetd/front.c fleetd/front.h fleetd/front_private.h \
	fleetd/front_accept.c fleetd/front_relay.c \
	fleetd/http.c fleetd/http.h fleetd/http_private.h \
	fleetd/http_answer.c fleetd/http_client.c fleetd/http_pump.c fleetd/http_request.c \
	fleetd/http_listen.c fleetd/http_listen.h \
	fleetd/listeners.c fleetd/listeners.h \
	fleetd/peer.c fleetd/peer.h \
	fleetd/url.c fleetd/url.h
fleetd_libhttp_a_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(MICROHTTPD_CFLAGS) \
	$(GNUTLS_CFLAGS)

fleetd_libconfig_a_SOURCES = \
	fleetd/config.c fleetd/config.h \
	fleetd/config_load.c \
	fleetd/config_text.c fleetd/config_text.h \
	fleetd/identity.c fleetd/identity.h \
	fleetd/journal.c fleetd/journal.h \
	fleetd/options.c fleetd/options.h
fleetd_libconfig_a_CPPFLAGS = $(AM_CPPFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)

# What a program that uses these libraries needs after them.
HTTP_LIBS = fleetd/libhttp.a fleetd/libaccess.a raftstore/libraftstore.a raftstore/libschema.a $(PKI_LIBS) $(PROTOBUF_C_LIBS) \
	$(MICROHTTPD_LIBS) $(UV_LIBS)
CONFIG_LIBS = fleetd/libconfig.a raftstore/libraftstore.a base/libbase.a $(INIH_LIBS) $(SYSTEMD_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-http tests/unit/test-listeners tests/unit/test-url tests/unit/test-config
check_PROGRAMS += tests/unit/test-front tests/unit/test-peer tests/unit/test-settings
TESTS += tests/unit/test-http tests/unit/test-listeners tests/unit/test-url tests/unit/test-config
TESTS += tests/unit/test-front tests/unit/test-peer tests/unit/test-settings
tests_unit_test_http_SOURCES = tests/unit/test-http.c
tests_unit_test_http_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(MICROHTTPD_CFLAGS)
tests_unit_test_http_LDADD = $(HTTP_LIBS) $(CMOCKA_LIBS) -lpthread
tests_unit_test_listeners_SOURCES = tests/unit/test-listeners.c
tests_unit_test_listeners_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(MICROHTTPD_CFLAGS)
tests_unit_test_listeners_LDADD = $(HTTP_LIBS) $(CMOCKA_LIBS) -lpthread
tests_unit_test_front_SOURCES = tests/unit/test-front.c
tests_unit_test_front_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(GNUTLS_CFLAGS) $(UV_CFLAGS)
tests_unit_test_front_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_front_LDADD = $(HTTP_LIBS) $(CMOCKA_LIBS) -lpthread
tests_unit_test_peer_SOURCES = tests/unit/test-peer.c
tests_unit_test_peer_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS)
tests_unit_test_peer_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_peer_LDADD = $(HTTP_LIBS) $(CMOCKA_LIBS)
tests_unit_test_url_SOURCES = tests/unit/test-url.c
tests_unit_test_url_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_url_LDADD = fleetd/libhttp.a base/libbase.a $(CMOCKA_LIBS)
tests_unit_test_config_SOURCES = tests/unit/test-config.c
tests_unit_test_config_CPPFLAGS = $(AM_CPPFLAGS) -DSOURCE_DIR='"$(top_srcdir)"'
tests_unit_test_config_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_config_LDADD = $(CONFIG_LIBS) $(CMOCKA_LIBS)
tests_unit_test_settings_SOURCES = tests/unit/test-settings.c
tests_unit_test_settings_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_settings_LDADD = $(CONFIG_LIBS) $(CMOCKA_LIBS)
endif

check_PROGRAMS += tests/fuzz/fuzz-http-replay tests/fuzz/fuzz-url-replay
TESTS += tests/fuzz/fuzz-http-replay tests/fuzz/fuzz-url-replay
tests_fuzz_fuzz_http_replay_SOURCES = tests/fuzz/fuzz-http.c tests/fuzz/replay.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_http_replay_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/http"'
tests_fuzz_fuzz_http_replay_LDADD = $(HTTP_LIBS)
tests_fuzz_fuzz_url_replay_SOURCES = tests/fuzz/fuzz-url.c tests/fuzz/replay.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_url_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/url"'
tests_fuzz_fuzz_url_replay_LDADD = fleetd/libhttp.a base/libbase.a
EXTRA_DIST += tests/fuzz/corpus/http tests/fuzz/corpus/url

if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-http tests/fuzz/fuzz-url
tests_fuzz_fuzz_http_SOURCES = tests/fuzz/fuzz-http.c
tests_fuzz_fuzz_http_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS)
tests_fuzz_fuzz_http_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_http_LDADD = $(HTTP_LIBS)
tests_fuzz_fuzz_url_SOURCES = tests/fuzz/fuzz-url.c
tests_fuzz_fuzz_url_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_url_LDADD = fleetd/libhttp.a base/libbase.a
endif

check_PROGRAMS += tests/fuzz/fuzz-config-replay
TESTS += tests/fuzz/fuzz-config-replay
tests_fuzz_fuzz_config_replay_SOURCES = tests/fuzz/fuzz-config.c tests/fuzz/replay.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_config_replay_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/config"'
tests_fuzz_fuzz_config_replay_LDADD = $(CONFIG_LIBS)
EXTRA_DIST += tests/fuzz/corpus/config

if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-config
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz-config.c
tests_fuzz_fuzz_config_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_config_LDADD = $(CONFIG_LIBS)
endif
