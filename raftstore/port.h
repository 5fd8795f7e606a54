/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster port: the one place where fleetd opens and accepts connections to other hosts, and so the one
 * place of TLS. A connection carries frames (4-byte big-endian length, then that many bytes); the one who
 * dials says Hello, the other answers Welcome or a reason, and only then messages flow.
 *
 *      dial:    RESOLVING -> CONNECTING -> HANDSHAKING -> GREETING (Hello sent) -> OPEN -> CLOSED
 *      accept:                             HANDSHAKING -> GREETING (awaits Hello) -> OPEN -> CLOSED
 *
 * A port with credentials does the handshake of TLS first (tls_handshake.h: in another thread), where both
 * sides show a machine's certificate of their cluster, and the machine id in Hello and Welcome must be that
 * certificate's. Only who wants to join shows none: it knows the cluster by its token. What a connection is
 * for is its ALPN protocol: fleet-raft/1, fleet-session/1, fleet-identify/1, fleet-join/1. A port without
 * credentials talks plain text. Where one of both kinds meets one of the other, both hear so. A certificate
 * that ends later ends no connection that was made with it: a clock that jumps, or a cluster that could not
 * renew it in time, is no reason to take a host's leader away.
 *
 * What it guards against: strangers (another cluster's id, another protocol, a server id that is not meant),
 * frames over the limit (refused before memory is taken), peers that connect and say nothing
 * (PORT_GREETING_MS), too many of those (HANDSHAKES_MAX), peers that do not read (CONN_QUEUE_MAX,
 * TCP_USER_TIMEOUT). Everything but the handshakes happens on the loop's thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "pki/pki.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/history.h"

#define PORT_PROTOCOL 1u
#define PORT_GREETING_MS \
    5000u /* For each of: name resolution, one address to connect to, TLS, the greeting. */
#define PORT_LINGER_MS 1000u

struct port;
struct conn;
struct tls_credentials;

/* Who we are: goes into every Hello and Welcome. Copied. */
struct port_identity {
    bool has_cluster; /* Otherwise nobody but PURPOSE_JOIN answers is spoken to. */
    uint8_t cluster_id[16];
    uint64_t server_id;
    char machine_id[33];
    uint8_t boot_id[16];
    uint32_t level;                 /* Our feature level (registry_level.h)... */
    uint32_t level_needed;          /* ...and the cluster's: who has less takes no part in consensus. */
    struct cluster_history history; /* Raft is spoken only with who has the same. */
    bool has_log;                   /* Of that history. */
};

/* What happens on a connection. on_close comes exactly once, last, never from inside a conn_*() or port_*()
 * call; the conn is freed after it returns. */
struct conn_callbacks {
    void (*on_open)(struct conn *conn, const Fleet__Welcome *welcome, void *data); /* Dialled ones only. */
    void (*on_message)(struct conn *conn, const uint8_t *bytes, size_t size,
                       void *data); /* Borrowed for the call. */
    void (*on_close)(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data);
    /* 'refusal' is the Welcome that did not accept us (may name the leader), or NULL. */
    void (*on_drain)(struct conn *conn,
                     void *data); /* All that was queued is with the kernel. May be NULL. */
    void (*on_accepted)(struct conn *conn, void *data); /* Accepted ones only: it is open now. May be NULL. */
};

/* See proof.h. The authorities are borrowed until the next turn of the loop. */
struct port_proof {
    struct pki_blob signature;
    ProtobufCBinaryData authorities[3];
    size_t authority_count;
};

struct port_callbacks {
    /* A peer has said a valid Hello. Return 0 and set *ret to the connection's callbacks and *ret_data (kept
     * until on_close) to accept; or a negative errno with a text in err (sent to the peer) to refuse,
     * optionally with leader_address (ADDRESS_MAX + 1 bytes, preset "") telling it where the leader is. The
     * connection is open, and conn_send() works, once this has returned. */
    int (*on_accept)(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data);
    /* A member of our cluster has data of a later history than ours, or of another one that is as late. May
     * come from inside any greeting, in both directions, and again; may be NULL. */
    void (*on_later_history)(const struct cluster_history *history, const char *machine_id, void *data);
    /* With TLS: signs the text with the key of the cluster's authority (pki_prove()). False: we do not have
     * it. May be NULL. */
    bool (*prove)(const void *text, size_t size, struct port_proof *ret, void *data);
    /* One that was dialled with PURPOSE_RAFT says that it is this server: may it? If not (a negative errno,
     * with a text), nothing is said to it. May be NULL. */
    int (*check_server)(const struct conn *conn, uint64_t server_id, struct err *err, void *data);
};

/* Ignores SIGPIPE for the whole process: libuv writes to sockets without MSG_NOSIGNAL. */
struct port *port_new(uv_loop_t *loop, const struct port_identity *identity,
                      const struct port_callbacks *callbacks, void *data);
void port_set_identity(struct port *port, const struct port_identity *identity);
void port_set_level_needed(struct port *port, uint32_t level);

/* Who we are in TLS, and whom we believe: takes a reference of its own. NULL: plain text. For connections
 * that begin from now on. */
void port_set_credentials(struct port *port, struct tls_credentials *credentials);

/* Listens on "address:port" ("[::]:7390" and ":7390" are both families); an IP address, no name: -EINVAL. May
 * be called for several addresses. Port 0: the kernel chooses, port_listening() tells. */
int port_listen(struct port *port, const char *address, struct err *err);

/* The address that the first successful port_listen() got, "" without one. Valid as long as the port. */
const char *port_listening(const struct port *port);

/* Instead of PORT_GREETING_MS, for tests. For connections that begin from now on. */
void port_set_greeting_ms(struct port *port, uint64_t ms);

/* Starts to connect, to each address of the name in turn. Never fails at once: trouble arrives at on_close.
 * 'to_server_id' 0: whoever answers. Without a cluster only PURPOSE_JOIN gets through. */
struct conn *port_dial(struct port *port, const char *address, Fleet__Purpose purpose, uint64_t to_server_id,
                       const struct conn_callbacks *callbacks, void *data);

/* The same with PURPOSE_JOIN, for one who has no credentials yet: the other side must show an authority whose
 * fingerprint begins with this pin (pki_verify_pinned()), and be a machine that this authority has certified.
 */
struct conn *port_dial_join(struct port *port, const char *address, const uint8_t pin[PKI_PIN_SIZE],
                            const struct conn_callbacks *callbacks, void *data);

/* Ends those that are open and not wanted any more: 'unwanted' says why not, which on_close comes with, and
 * NULL of one that is. */
void port_end(struct port *port, const char *(*unwanted)(const struct conn *conn, void *data), void *data);

/* Ends every connection (on_close is called for each) and the listening; 'done' comes when nothing is left,
 * and the port is freed then. */
void port_close(struct port *port, void (*done)(void *data), void *data);

/* Queues one frame; copies. All frames of one turn of the loop leave in one writev(). -ENOBUFS: the peer
 * reads too slowly, more than CONN_QUEUE_MAX would wait (nothing queued), and the connection is closed for
 * that; -ENOTCONN: not open; -EMSGSIZE: over FRAME_MAX. */
int conn_send(struct conn *conn, const void *bytes, size_t size);

size_t conn_queued(const struct conn *conn); /* Bytes not yet handed to the kernel. */

/* No more on_message; what is queued is still sent, for at most PORT_LINGER_MS; then on_close with 'reason'
 * (copied). Again: ignored. */
void conn_close(struct conn *conn, const char *reason);
/* In on_close: what the TLS handshake failed with (struct tls_result), 0: it did not, or there was none. */
int conn_handshake_error(const struct conn *conn);
const char *conn_peer(const struct conn *conn); /* "address:port" of the other side, for messages. */
uint64_t conn_peer_server_id(const struct conn *conn);

/* Whose certificate the other side has shown, and all else that it says. NULL: none (plain text, or it wants
 * to join). Valid as long as the conn; also in on_accept. */
const struct pki_name *conn_peer_name(const struct conn *conn);
/* Whether the other side has proved, in its greeting, that it has the key of the cluster's authority, and so
 * is one of those who keep the data, and may lead (proof.h): of one that is trusted now. Asked for: of who is
 * dialled, and of who dials with PURPOSE_RAFT. */
bool conn_peer_proved(const struct conn *conn);
const struct pki_info *conn_peer_info(const struct conn *conn);
/* Whether its certificate is of an authority that the port trusts now (port_set_credentials()), which may not
 * be what it trusted when the connection began. True of plain text, and of who joins. */
bool conn_peer_trusted(const struct conn *conn);
/* Whether it has proved in its greeting that it keeps the data, by an authority that is trusted no more. */
bool conn_peer_proof_ended(const struct conn *conn);
Fleet__Purpose conn_purpose(const struct conn *conn);
bool conn_is_dialled(const struct conn *conn); /* By us. */
