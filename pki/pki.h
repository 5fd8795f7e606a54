/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and certificates of a cluster: its authority, its machines, its clients. A thin layer over GnuTLS that
 * knows what a fleet certificate looks like, and nothing of sockets, files, clocks or who may do what.
 *
 * Who a certificate is for is in its subjectAltName, as one URI (RFC 5280 §4.2.1.6), and nowhere else:
 *
 *      fleet://CLUSTER/authority
 *      fleet://CLUSTER/machine/MACHINE-ID
 *      fleet://CLUSTER/client/NAME/ROLE
 *
 * CLUSTER and MACHINE-ID are 32 lower-case hex digits. A certificate without exactly one such name is none of
 * ours; what else it says (common name, host names) is for people and for clients that check host names.
 *
 * Keys are ECDSA on P-256, signatures are made with SHA-256, and nothing else is taken. Every certificate is
 * valid since 2000; what counts is only when it ends, so that a clock that jumps back locks nobody out.
 *
 * Everything here is bytes in, bytes out; every size is limited before it is looked at. -EBADMSG: damaged, or
 * not of the form that is asked for. -EKEYREJECTED: well formed, but not one of ours, or not to be trusted.
 * All functions may be called by several threads, on different objects. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

#define PKI_CLUSTER_ID_SIZE  16u
#define PKI_FINGERPRINT_SIZE 32u   /* SHA-256 of a certificate's DER. */
#define PKI_KEY_ID_SIZE      32u   /* SHA-256 of a public key (subject and authority key identifier). */
#define PKI_PIN_SIZE         16u   /* The first bytes of a fingerprint: what a join token has room for. */
#define PKI_ID_SIZE          65u   /* A machine id (32 hex digits) or a client's name, and a NUL. */
#define PKI_URI_SIZE         128u  /* The longest name as a URI, and a NUL. */
#define PKI_SERIAL_SIZE      41u   /* Up to 20 bytes as hex digits (RFC 5280 §4.1.2.2), and a NUL. */
#define PKI_CERTIFICATE_MAX  8192u /* Bytes of DER. */
#define PKI_REQUEST_MAX      4096u
#define PKI_KEY_MAX          1024u        /* Bytes of PKCS#8. */
#define PKI_PEM_MAX          (64u * 1024) /* Bytes of a PEM file. */
#define PKI_ROOTS_MAX        4u           /* Authorities that are trusted at one time. */
#define PKI_CHAIN_MAX        8u /* Certificates that a peer shows: its own, those above it, and the authorities. */
#define PKI_HOSTS_MAX        16u  /* Host names and addresses in one certificate. */
#define PKI_HOST_MAX         253u /* Characters of one. */

enum pki_kind { PKI_NOBODY, PKI_MACHINE, PKI_CLIENT, PKI_AUTHORITY };

/* Each may what those before it may. */
enum pki_role { PKI_ROLE_NONE, PKI_ROLE_VIEWER, PKI_ROLE_OPERATOR, PKI_ROLE_ADMIN };

struct pki_name {
    enum pki_kind kind;
    uint8_t cluster_id[PKI_CLUSTER_ID_SIZE];
    char id[PKI_ID_SIZE]; /* "" for an authority. */
    enum pki_role role;   /* Of a client; otherwise PKI_ROLE_NONE. */
};

/* Bytes on the heap, owned. All zero is a valid empty one. */
struct pki_blob {
    uint8_t *data;
    size_t size;
};

void pki_blob_done(struct pki_blob *blob); /* Wipes them too: they may have been a key. */
void pki_blobs_done(struct pki_blob *blobs, size_t count);

struct pki_info {
    struct pki_name name;
    char serial[PKI_SERIAL_SIZE];              /* Lower-case hex digits. */
    uint64_t not_after_ms;                     /* Wall clock. */
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE]; /* Of this certificate. */
    uint8_t key_id[PKI_KEY_ID_SIZE];           /* Of its key. */
    uint8_t issuer[PKI_KEY_ID_SIZE];           /* Of the key that signed it: an authority's key_id. */
    uint8_t root[PKI_KEY_ID_SIZE]; /* Of the root that pki_verify() found above it; zero: it was not asked. */
};

/* ---- names ---- */

const char *pki_role_name(enum pki_role role);            /* "none", "viewer", "operator", "admin". */
int pki_role_parse(const char *text, enum pki_role *ret); /* -EINVAL. */
int pki_client_name_check(const char *name,
                          struct err *err); /* -EINVAL. Letters, digits, "-_.@", the first one a
                                               letter or digit; 1 to PKI_ID_SIZE - 1. */
void pki_name_format(const struct pki_name *name, char ret[PKI_URI_SIZE]); /* The URI; "" of nobody. */
int pki_name_parse(const void *uri, size_t size,
                   struct pki_name *ret); /* -EINVAL: anything but such a URI. */

/* ---- keys ---- */
struct pki_key;
int pki_key_new(struct pki_key **ret, struct err *err);
void pki_key_free(struct pki_key *key); /* Wipes it. */
DEFINE_FREEP(struct pki_key, pki_key)
int pki_key_encode(const struct pki_key *key, struct pki_blob *ret, struct err *err); /* PKCS#8 DER. */
int pki_key_decode(const void *der, size_t size, struct pki_key **ret, struct err *err);
int pki_key_to_pem(const struct pki_key *key, struct pki_blob *ret, struct err *err);
/* 'pem' need not end in a NUL. */
int pki_key_from_pem(const void *pem, size_t size, struct pki_key **ret, struct err *err);

/* Whether the certificate is for this key. -EKEYREJECTED: for another. */
int pki_key_fits(const struct pki_key *key, const void *certificate, size_t size, struct err *err);

/* ---- certificates ---- */

int pki_authority_new(const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const struct pki_key *key,
                      uint64_t not_after_ms, struct pki_blob *ret, struct err *err);

/* 'subject' certified by 'issuer' instead of by itself: who trusts only the old authority may follow this to
 * the new. Ends when the first of both ends. -EKEYREJECTED: not two authorities of one cluster. */
int pki_authority_cross(const void *subject, size_t subject_size, const void *issuer, size_t issuer_size,
                        const struct pki_key *issuer_key, struct pki_blob *ret, struct err *err);

/* A request for a certificate (PKCS#10) for this key; who it is for is decided by who signs it. */
int pki_request_new(const struct pki_key *key, struct pki_blob *ret, struct err *err);

/* As a text that ends in a NUL; and back. -EBADMSG: there is none in it. What it is worth is pki_sign()'s. */
int pki_request_to_pem(const struct pki_blob *request, struct pki_blob *ret, struct err *err);
int pki_request_from_pem(const void *pem, size_t size, struct pki_blob *ret, struct err *err);

struct pki_subject {
    struct pki_name name; /* A machine or a client. */
    const char *const
        *hosts; /* DNS names and IP addresses, for clients that check them (RFC 6125); may be none. */
    size_t host_count;
    uint64_t not_after_ms; /* Cut to what the authority's own is. */
};

/* -EBADMSG: the request is damaged, of another kind of key, or not signed by its own key. -EINVAL: the
 * subject is not one to certify (its name, its hosts, another cluster's). 'ret_info' may be NULL. */
int pki_sign(const void *authority, size_t authority_size, const struct pki_key *authority_key,
             const void *request, size_t request_size, const struct pki_subject *subject,
             struct pki_blob *ret, struct pki_info *ret_info, struct err *err);

/* What a certificate says, without asking who signed it, or whether it has ended. -EBADMSG: no certificate,
 * or a damaged one; -EKEYREJECTED: a certificate, but not one of fleet's. */
int pki_read(const void *der, size_t size, struct pki_info *ret, struct err *err);

/* Whether 'chain' (a machine's or client's own certificate first; the order of the rest does not matter)
 * leads to one of 'roots' and holds at 'now_ms' (wall clock); 'ret' is of the first one. -EKEYEXPIRED: it
 * would, but one of them has ended; -EKEYREJECTED: damaged, another cluster's, of no authority that is known;
 * -EINVAL: 'roots' are of no use. Each with a text that says so of "the certificate". */
int pki_verify(const struct pki_blob *chain, size_t chain_count, const struct pki_blob *roots,
               size_t root_count, uint64_t now_ms, struct pki_info *ret, struct err *err);

/* The same, where all that is known is the beginning of an authority's fingerprint: that authority must be in
 * the chain too. '*ret_root' (may be NULL) is its place there. */
int pki_verify_pinned(const struct pki_blob *chain, size_t chain_count, const uint8_t pin[PKI_PIN_SIZE],
                      uint64_t now_ms, struct pki_info *ret, size_t *ret_root, struct err *err);

/* ---- proofs ---- */

#define PKI_PROOF_MAX 128u /* Bytes. */

/* Shows that this host has an authority's key: signs a text with it, which must be one that no certificate
 * begins like, and that means the same nowhere else. */
int pki_prove(const struct pki_key *authority_key, const void *text, size_t text_size, struct pki_blob *ret,
              struct err *err);

/* Whether the key of one of 'roots', or of one of 'others' that a root has certified, has signed this text.
 * 'ret' is of the authority whose key it was. -EKEYREJECTED: none of them has; -EKEYEXPIRED: one has that has
 * ended; -EINVAL: 'roots' are of no use. */
int pki_verify_proof(const void *proof, size_t proof_size, const void *text, size_t text_size,
                     const struct pki_blob *others, size_t other_count, const struct pki_blob *roots,
                     size_t root_count, uint64_t now_ms, struct pki_info *ret, struct err *err);

/* ---- PEM ---- */

/* PEM files hold any number of certificates. The text ends in a NUL that 'size' does not count. */
int pki_to_pem(const struct pki_blob *certificates, size_t count, struct pki_blob *ret, struct err *err);
/* At most 'max' are read; more: -E2BIG. None: -EBADMSG. They are not checked further: see pki_read(). */
int pki_from_pem(const void *pem, size_t size, struct pki_blob *ret, size_t max, size_t *ret_count,
                 struct err *err);

/* ---- join tokens ---- */
#define JOIN_TOKEN_SECRET_SIZE 16u
#define JOIN_TOKEN_DIGEST_SIZE 32u
#define JOIN_TOKEN_TEXT_SIZE   51u /* "fleet1." and 43 characters, and a NUL. */
#define JOIN_TOKEN_ID_SIZE     17u /* 16 hex digits, and a NUL: names the token without giving it away. */

struct join_token {
    uint8_t secret[JOIN_TOKEN_SECRET_SIZE];
    uint8_t pin[PKI_PIN_SIZE];
};

/* A new one for who will be shown this authority. */
int join_token_new(const void *authority, size_t size, struct join_token *ret, struct err *err);
void join_token_format(const struct join_token *token, char ret[JOIN_TOKEN_TEXT_SIZE]);
int join_token_parse(const char *text, struct join_token *ret,
                     struct err *err); /* Blanks around it are allowed. */
void join_token_id(const uint8_t secret[JOIN_TOKEN_SECRET_SIZE], char ret[JOIN_TOKEN_ID_SIZE]);
/* What is stored. */
void join_token_digest(const uint8_t secret[JOIN_TOKEN_SECRET_SIZE], uint8_t ret[JOIN_TOKEN_DIGEST_SIZE]);
