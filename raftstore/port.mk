# The cluster port, and libraft's messages over it.
raftstore_libraftstore_a_SOURCES += \
	raftstore/address.c raftstore/address.h \
	raftstore/assembly.c raftstore/assembly.h \
	raftstore/conn.c raftstore/conn.h \
	raftstore/conn_greet.c raftstore/conn_read.c raftstore/conn_secure.c raftstore/conn_write.c \
	raftstore/doorbell.c raftstore/doorbell.h \
	raftstore/frame.c raftstore/frame.h \
	raftstore/greeting.c raftstore/greeting.h \
	raftstore/identify.c raftstore/identify.h \
	raftstore/port.c raftstore/port.h \
	raftstore/proof.c raftstore/proof.h \
	raftstore/raftnet.c raftstore/raftnet.h raftstore/raftnet_private.h \
	raftstore/raftnet_caller.c raftstore/raftnet_link.c raftstore/raftnet_null.c raftstore/raftnet_peer.c \
	raftstore/raftnet_send.c raftstore/raftnet_snapshot.c \
	raftstore/raftconf.c raftstore/raftconf.h \
	raftstore/raftwire.c raftstore/raftwire.h \
	raftstore/tls_alert.c raftstore/tls_alert.h \
	raftstore/tls_credentials.c raftstore/tls_credentials.h \
	raftstore/tls_handshake.c raftstore/tls_handshake.h raftstore/tls_handshake_private.h \
	raftstore/tls_session.c \
	raftstore/tls_thread.c \
	raftstore/tls_stream.c raftstore/tls_stream.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test-tls tests/unit/test-port tests/unit/test-port-tls tests/unit/test-port-flood tests/unit/test-raftnet
TESTS += tests/unit/test-tls tests/unit/test-port tests/unit/test-port-tls tests/unit/test-port-flood tests/unit/test-raftnet
tests_unit_test_port_tls_SOURCES = tests/unit/test-port-tls.c tests/unit/odd-client.c tests/unit/odd-client.h \
	tests/unit/port-world.c tests/unit/port-world.h
tests_unit_test_port_tls_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_port_tls_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_port_tls_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_port_flood_SOURCES = tests/unit/test-port-flood.c tests/unit/odd-client.c tests/unit/odd-client.h \
	tests/unit/port-world.c tests/unit/port-world.h
tests_unit_test_port_flood_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_port_flood_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_port_flood_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_tls_SOURCES = tests/unit/test-tls.c tests/unit/port-world.c tests/unit/port-world.h
tests_unit_test_tls_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_tls_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_tls_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_port_SOURCES = tests/unit/test-port.c tests/unit/port-world.c tests/unit/port-world.h
tests_unit_test_port_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_port_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_port_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
# To be run by hand.
check_PROGRAMS += tests/bench/bench-port
tests_bench_bench_port_SOURCES = tests/bench/bench-port.c tests/unit/port-world.c tests/unit/port-world.h
tests_bench_bench_port_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_bench_bench_port_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_bench_bench_port_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_raftnet_SOURCES = tests/unit/test-raftnet.c
tests_unit_test_raftnet_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(RAFT_CFLAGS)
tests_unit_test_raftnet_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_raftnet_LDADD = $(RAFTSTORE_LIBS) $(CMOCKA_LIBS)
endif

# Every fuzz target is built twice, see units/automake.mk: replaying its corpus in every check, and with libFuzzer.
check_PROGRAMS += tests/fuzz/fuzz-frame-replay tests/fuzz/fuzz-raft-message-replay tests/fuzz/fuzz-tls-stream-replay \
	tests/fuzz/fuzz-greeting-replay tests/fuzz/fuzz-assembly-replay
TESTS += tests/fuzz/fuzz-frame-replay tests/fuzz/fuzz-raft-message-replay tests/fuzz/fuzz-tls-stream-replay \
	tests/fuzz/fuzz-greeting-replay tests/fuzz/fuzz-assembly-replay
tests_fuzz_fuzz_frame_replay_SOURCES = tests/fuzz/fuzz-frame.c tests/fuzz/replay.c
tests_fuzz_fuzz_frame_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) \
	-DCORPUS='"$(srcdir)/tests/fuzz/corpus/frame"'
tests_fuzz_fuzz_frame_replay_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_raft_message_replay_SOURCES = tests/fuzz/fuzz-raft-message.c tests/fuzz/replay.c
tests_fuzz_fuzz_raft_message_replay_CPPFLAGS = $(AM_CPPFLAGS) $(RAFT_CFLAGS) \
	-DCORPUS='"$(srcdir)/tests/fuzz/corpus/raft-message"'
tests_fuzz_fuzz_raft_message_replay_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_tls_stream_replay_SOURCES = tests/fuzz/fuzz-tls-stream.c tests/fuzz/replay.c
tests_fuzz_fuzz_tls_stream_replay_CPPFLAGS = $(AM_CPPFLAGS) $(GNUTLS_CFLAGS) \
	-DCORPUS='"$(srcdir)/tests/fuzz/corpus/tls-stream"'
tests_fuzz_fuzz_tls_stream_replay_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_greeting_replay_SOURCES = tests/fuzz/fuzz-greeting.c tests/fuzz/authority.c tests/fuzz/authority.h tests/fuzz/replay.c
tests_fuzz_fuzz_greeting_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/greeting"'
tests_fuzz_fuzz_greeting_replay_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_assembly_replay_SOURCES = tests/fuzz/fuzz-assembly.c tests/fuzz/replay.c
tests_fuzz_fuzz_assembly_replay_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(RAFT_CFLAGS) -DCORPUS='"$(srcdir)/tests/fuzz/corpus/assembly"'
tests_fuzz_fuzz_assembly_replay_LDADD = $(RAFTSTORE_LIBS)
EXTRA_DIST += tests/fuzz/corpus/frame tests/fuzz/corpus/raft-message tests/fuzz/corpus/tls-stream \
	tests/fuzz/corpus/greeting tests/fuzz/corpus/assembly

if FUZZ
check_PROGRAMS += tests/fuzz/fuzz-frame tests/fuzz/fuzz-raft-message tests/fuzz/fuzz-tls-stream tests/fuzz/fuzz-greeting \
	tests/fuzz/fuzz-assembly
tests_fuzz_fuzz_frame_SOURCES = tests/fuzz/fuzz-frame.c
tests_fuzz_fuzz_frame_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS)
tests_fuzz_fuzz_frame_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_frame_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_raft_message_SOURCES = tests/fuzz/fuzz-raft-message.c
tests_fuzz_fuzz_raft_message_CPPFLAGS = $(AM_CPPFLAGS) $(RAFT_CFLAGS)
tests_fuzz_fuzz_raft_message_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_raft_message_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_tls_stream_SOURCES = tests/fuzz/fuzz-tls-stream.c
tests_fuzz_fuzz_tls_stream_CPPFLAGS = $(AM_CPPFLAGS) $(GNUTLS_CFLAGS)
tests_fuzz_fuzz_tls_stream_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_tls_stream_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_greeting_SOURCES = tests/fuzz/fuzz-greeting.c tests/fuzz/authority.c tests/fuzz/authority.h
tests_fuzz_fuzz_greeting_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(UV_CFLAGS) $(GNUTLS_CFLAGS)
tests_fuzz_fuzz_greeting_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_greeting_LDADD = $(RAFTSTORE_LIBS)
tests_fuzz_fuzz_assembly_SOURCES = tests/fuzz/fuzz-assembly.c
tests_fuzz_fuzz_assembly_CPPFLAGS = $(AM_CPPFLAGS) $(PROTOBUF_C_CFLAGS) $(RAFT_CFLAGS)
tests_fuzz_fuzz_assembly_LDFLAGS = -fsanitize=fuzzer
tests_fuzz_fuzz_assembly_LDADD = $(RAFTSTORE_LIBS)
endif
