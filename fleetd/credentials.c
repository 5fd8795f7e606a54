/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#define HOST_KEY      "host.key"
#define HOST_CRT      "host.crt"
#define AUTHORITY_CRT "authority.crt"
#define AUTHORITY_KEY "authority.key"

/* ---- files ---- */

static int fail(const struct credentials *credentials, const char *verb, const char *name, int r,
                struct err *err)
{
    return err_set(err, r, "cannot %s %s%s%s: %s", verb, credentials->directory, name[0] != '\0' ? "/" : "",
                   name, strerror(-r));
}

/* -ENOENT without a text. What was read is wiped by the caller's pki_blob_done(). */
static int read_file(const struct credentials *credentials, const char *name, struct pki_blob *ret,
                     struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", credentials->directory, name);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t size;

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail(credentials, "read", name, -errno, err);
    if (st.st_size > PKI_PEM_MAX)
        return err_set(err, -E2BIG, "%s is larger than %u bytes", path, PKI_PEM_MAX);
    ret->data = xmalloc((size_t)st.st_size + 1);
    size = read(fd, ret->data, (size_t)st.st_size);
    if (size < 0) {
        int r = -errno;

        pki_blob_done(ret);
        return fail(credentials, "read", name, r, err);
    }
    ret->size = (size_t)size;
    return 0;
}

/* Makes the directory if it is missing. */
static int open_directory(const struct credentials *credentials, struct err *err)
{
    _cleanup_(freep) char *parent = xstrdup(credentials->directory);
    int fd;

    *strrchr(parent, '/') = '\0';
    if ((mkdir(parent, 0700) < 0 && errno != EEXIST) ||
        (mkdir(credentials->directory, 0700) < 0 && errno != EEXIST))
        return fail(credentials, "make", "", -errno, err);
    fd = open(credentials->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? fail(credentials, "open", "", -errno, err) : fd;
}

static int write_file(const struct credentials *credentials, const char *name, const struct pki_blob *content,
                      struct err *err)
{
    _cleanup_(closep) int fd = open_directory(credentials, err);
    int r;

    if (fd < 0)
        return fd;
    r = file_replace(fd, name, content->data, content->size, 0600);
    return r < 0 ? fail(credentials, "write", name, r, err) : 0;
}

static int read_key(const struct credentials *credentials, const char *name, struct pki_key **ret,
                    struct err *err)
{
    struct pki_blob pem = {0};
    int r = read_file(credentials, name, &pem, err);

    if (r < 0)
        return r;
    r = pki_key_from_pem(pem.data, pem.size, ret, err);
    pki_blob_done(&pem);
    return r < 0 ? err_prefix(err, r, "%s/%s", credentials->directory, name) : 0;
}

static int write_key(const struct credentials *credentials, const char *name, const struct pki_key *key,
                     struct err *err)
{
    struct pki_blob pem = {0};
    int r = pki_key_to_pem(key, &pem, err);

    if (r >= 0)
        r = write_file(credentials, name, &pem, err);
    pki_blob_done(&pem);
    return r;
}

static int read_certificates(const struct credentials *credentials, const char *name, struct pki_blob *ret,
                             size_t max, size_t *ret_count, struct err *err)
{
    struct pki_blob pem = {0};
    int r = read_file(credentials, name, &pem, err);

    if (r < 0)
        return r;
    r = pki_from_pem(pem.data, pem.size, ret, max, ret_count, err);
    pki_blob_done(&pem);
    return r < 0 ? err_prefix(err, r, "%s/%s", credentials->directory, name) : 0;
}

static int write_certificates(const struct credentials *credentials, const char *name,
                              const struct pki_blob *certificates, size_t count, struct err *err)
{
    struct pki_blob pem = {0};
    int r = pki_to_pem(certificates, count, &pem, err);

    if (r >= 0)
        r = write_file(credentials, name, &pem, err);
    pki_blob_done(&pem);
    return r;
}

/* Of what makes no sense, zeroes: it will not help anybody either. */
static void know_fingerprints(struct credentials *credentials)
{
    struct pki_info info;

    memset(credentials->fingerprints, 0, sizeof credentials->fingerprints);
    for (size_t i = 0; i < credentials->root_count; i++)
        if (pki_read(credentials->roots[i].data, credentials->roots[i].size, &info, NULL) >= 0)
            memcpy(credentials->fingerprints[i], info.fingerprint, PKI_FINGERPRINT_SIZE);
}

/* ---- life ---- */

static void forget_certificates(struct credentials *credentials)
{
    pki_blobs_done(credentials->chain, credentials->chain_count);
    pki_blobs_done(credentials->roots, credentials->root_count);
    credentials->chain_count = credentials->root_count = 0;
    credentials->info = (struct pki_info){0};
}

void credentials_done(struct credentials *credentials)
{
    forget_certificates(credentials);
    pki_key_free(credentials->key);
    free(credentials->directory);
    *credentials = (struct credentials){0};
}

static int load(struct credentials *credentials, struct err *err)
{
    int r = read_key(credentials, HOST_KEY, &credentials->key, err);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = read_certificates(credentials, HOST_CRT, credentials->chain, PKI_CHAIN_MAX, &credentials->chain_count,
                          err);
    if (r < 0)
        return r == -ENOENT ? 0 : r; /* The host never got so far. */
    r = read_certificates(credentials, AUTHORITY_CRT, credentials->roots, PKI_ROOTS_MAX,
                          &credentials->root_count, err);
    if (r < 0)
        return r == -ENOENT ? fail(credentials, "read", AUTHORITY_CRT, r, err) : r;
    know_fingerprints(credentials);
    r = pki_read(credentials->chain[0].data, credentials->chain[0].size, &credentials->info, err);
    if (r >= 0)
        r = pki_key_fits(credentials->key, credentials->chain[0].data, credentials->chain[0].size, err);
    return r < 0 ? err_prefix(err, r, "%s/" HOST_CRT, credentials->directory) : 0;
}

int credentials_load(const char *data_dir, struct credentials *ret, struct err *err)
{
    struct credentials credentials = {.directory = xasprintf("%s/" CREDENTIALS_DIR, data_dir)};
    int r = load(&credentials, err);

    if (r < 0)
        credentials_done(&credentials);
    else
        *ret = credentials;
    return r;
}

bool credentials_complete(const struct credentials *credentials)
{
    return credentials->key != NULL && credentials->chain_count > 0;
}

bool credentials_ended(const struct credentials *credentials, uint64_t now_ms)
{
    return credentials_complete(credentials) && now_ms >= credentials->info.not_after_ms;
}

/* ---- getting a certificate ---- */

int credentials_request(struct credentials *credentials, struct pki_blob *ret, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r;

    if (credentials->key == NULL) {
        r = pki_key_new(&key, err);
        if (r >= 0)
            r = write_key(credentials, HOST_KEY, key, err);
        if (r < 0)
            return r;
        credentials->key = TAKE_PTR(key);
    }
    return pki_request_new(credentials->key, ret, err);
}

static int check_issued(const struct credentials *credentials, const struct credentials_issued *issued,
                        const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const char *machine_id,
                        uint64_t now_ms, struct pki_info *ret, struct err *err)
{
    int r;

    if (issued->chain_count == 0 || issued->chain_count > PKI_CHAIN_MAX || issued->root_count == 0 ||
        issued->root_count > PKI_ROOTS_MAX)
        return err_set(err, -EKEYREJECTED, "%zu certificates and %zu authorities make no sense",
                       issued->chain_count, issued->root_count);
    r = pki_verify(issued->chain, issued->chain_count, issued->roots, issued->root_count, now_ms, ret, err);
    if (r == -EKEYEXPIRED)
        return err_prefix(err, r, "by this host's clock");
    if (r < 0)
        return r;
    if (ret->name.kind != PKI_MACHINE || !streq(ret->name.id, machine_id) ||
        memcmp(ret->name.cluster_id, cluster_id, PKI_CLUSTER_ID_SIZE) != 0)
        return err_set(err, -EKEYREJECTED, "the certificate is not for this machine of this cluster");
    return pki_key_fits(credentials->key, issued->chain[0].data, issued->chain[0].size, err);
}

static void copy_blobs(struct pki_blob *to, size_t *to_count, const struct pki_blob *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (struct pki_blob){.data = xmemdup(from[i].data, from[i].size), .size = from[i].size};
    *to_count = count;
}

int credentials_take(struct credentials *credentials, const struct credentials_issued *issued,
                     const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const char *machine_id, uint64_t now_ms,
                     struct err *err)
{
    struct pki_info info;
    int r = check_issued(credentials, issued, cluster_id, machine_id, now_ms, &info, err);

    /* Whom to trust first: a certificate without its authority would be worth nothing after a power cut. */
    if (r >= 0)
        r = write_certificates(credentials, AUTHORITY_CRT, issued->roots, issued->root_count, err);
    if (r >= 0)
        r = write_certificates(credentials, HOST_CRT, issued->chain, issued->chain_count, err);
    if (r < 0)
        return r;
    forget_certificates(credentials);
    copy_blobs(credentials->chain, &credentials->chain_count, issued->chain, issued->chain_count);
    copy_blobs(credentials->roots, &credentials->root_count, issued->roots, issued->root_count);
    know_fingerprints(credentials);
    credentials->info = info;
    memset(credentials->info.root, 0, sizeof credentials->info.root); /* As after the next start. */
    return 0;
}

static bool same_blobs(const struct pki_blob *a, size_t a_count, const struct pki_blob *b, size_t b_count)
{
    for (size_t i = 0; i < a_count && i < b_count; i++)
        if (a[i].size != b[i].size || memcmp(a[i].data, b[i].data, a[i].size) != 0)
            return false;
    return a_count == b_count;
}

/* What was kept and cannot be read would be said to be damaged at the next start, which then is none. */
static int check_readable(const struct pki_blob *certificates, size_t count, struct err *err)
{
    struct pki_info info;
    int r;

    for (size_t i = 0; i < count; i++) {
        r = pki_read(certificates[i].data, certificates[i].size, &info, err);
        if (r < 0)
            return err_prefix(err, r, "authority %zu of %zu", i + 1, count);
    }
    return 0;
}

int credentials_trust(struct credentials *credentials, const struct pki_blob *roots, size_t count,
                      struct err *err)
{
    int r;

    if (same_blobs(credentials->roots, credentials->root_count, roots, count))
        return 0;
    r = check_readable(roots, count, err);
    if (r < 0)
        return r;
    r = write_certificates(credentials, AUTHORITY_CRT, roots, count, err);
    if (r < 0)
        return r;
    pki_blobs_done(credentials->roots, credentials->root_count);
    copy_blobs(credentials->roots, &credentials->root_count, roots, count);
    know_fingerprints(credentials);
    return 1;
}

/* ---- the founder ---- */

int credentials_save_authority(struct credentials *credentials, const struct pki_key *key, struct err *err)
{
    return write_key(credentials, AUTHORITY_KEY, key, err);
}

int credentials_load_authority(const struct credentials *credentials, struct pki_blob *ret, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r = read_key(credentials, AUTHORITY_KEY, &key, err);

    if (r == -ENOENT)
        return fail(credentials, "read", AUTHORITY_KEY, r, err);
    return r < 0 ? r : pki_key_encode(key, ret, err);
}

void credentials_forget_authority(const struct credentials *credentials)
{
    _cleanup_(freep) char *path = xasprintf("%s/" AUTHORITY_KEY, credentials->directory);

    unlink(path);
}
