/* SPDX-License-Identifier: Apache-2.0 */
/* Whom to believe. GnuTLS checks each path (signatures, constraints, path lengths); which path that is, when
 * its parts end and whose they are is looked at here, so that the answer can say what is wrong. GnuTLS would
 * go by the clock of the process, and would refuse what begins in the future. */
#include <config.h>

#include "pki/private.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/hex.h"

#define VERIFY_FLAGS                                                                 \
    (GNUTLS_VERIFY_DISABLE_TIME_CHECKS | GNUTLS_VERIFY_DISABLE_TRUSTED_TIME_CHECKS | \
     GNUTLS_VERIFY_DISABLE_CRL_CHECKS | GNUTLS_VERIFY_DO_NOT_ALLOW_X509_V1_CA_CRT |  \
     GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_HIGH))

static unsigned check_below(gnutls_x509_crt_t *path, size_t count, gnutls_x509_crt_t root)
{
    gnutls_x509_crt_t trusted[1] = {root};
    gnutls_x509_trust_list_t list;
    unsigned status = GNUTLS_CERT_INVALID;

    if (gnutls_x509_trust_list_init(&list, 1) < 0)
        return status;
    if (gnutls_x509_trust_list_add_cas(list, trusted, 1, 0) != 1 ||
        gnutls_x509_trust_list_verify_crt(list, path, count, VERIFY_FLAGS, &status, NULL) < 0)
        status = GNUTLS_CERT_INVALID;
    gnutls_x509_trust_list_deinit(list, 0);
    return status;
}

bool pki_is_signed_by(gnutls_x509_crt_t certificate, gnutls_x509_crt_t authority)
{
    return check_below(&certificate, 1, authority) == 0;
}

struct link {
    gnutls_x509_crt_t certificate;
    struct pki_info info;
};

struct links {
    struct link items[PKI_CHAIN_MAX];
    size_t count;
};

static void links_done(struct links *links)
{
    for (size_t i = 0; i < links->count; i++)
        gnutls_x509_crt_deinit(links->items[i].certificate);
}

static int links_open(struct links *links, const struct pki_blob *blobs, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        struct link *link = &links->items[i];
        int r = pki_certificate_open(blobs[i].data, blobs[i].size, &link->certificate, &link->info, err);

        if (r < 0)
            return r;
        links->count++;
    }
    return 0;
}

static bool same_cluster(const struct link *a, const struct link *b)
{
    return memcmp(a->info.name.cluster_id, b->info.name.cluster_id, PKI_CLUSTER_ID_SIZE) == 0;
}

static bool signs(const struct link *above, const struct link *below)
{
    return memcmp(below->info.issuer, above->info.key_id, PKI_KEY_ID_SIZE) == 0;
}

static int open_roots(struct links *roots, const struct pki_blob *blobs, size_t count, struct err *err)
{
    if (count == 0 || count > PKI_ROOTS_MAX)
        return err_set(err, -EINVAL, "this host trusts %zu authorities, which must be 1 to %u", count,
                       PKI_ROOTS_MAX);
    if (links_open(roots, blobs, count, err) < 0)
        return err_prefix(err, -EINVAL, "an authority that this host trusts");
    for (size_t i = 0; i < count; i++)
        if (roots->items[i].info.name.kind != PKI_AUTHORITY)
            return err_set(err, -EINVAL, "a certificate that this host trusts is not an authority's");
    return 0;
}

static int open_chain(struct links *chain, const struct pki_blob *blobs, size_t count, struct err *err)
{
    if (count == 0)
        return err_set(err, -EKEYREJECTED, "there is no certificate");
    if (count > PKI_CHAIN_MAX)
        return err_set(err, -EKEYREJECTED, "there are %zu certificates, the limit is %u", count,
                       PKI_CHAIN_MAX);
    if (links_open(chain, blobs, count, err) < 0)
        return -EKEYREJECTED;
    if (chain->items[0].info.name.kind == PKI_AUTHORITY)
        return err_set(err, -EKEYREJECTED, "the certificate is an authority's, not a machine's or client's");
    for (size_t i = 1; i < count; i++)
        if (chain->items[i].info.name.kind != PKI_AUTHORITY ||
            !same_cluster(&chain->items[i], &chain->items[0]))
            return err_set(err, -EKEYREJECTED, "the certificate comes with one that cannot have signed it");
    return 0;
}

/* Path by path, each from the leaf to a root of its own cluster. More than this many are not tried: honest
 * chains have two or three. */
#define PATHS_MAX 16u

struct search {
    const struct links *chain, *roots;
    uint64_t now_ms;
    unsigned paths;
    const struct link *path[PKI_CHAIN_MAX + 1];
    const struct link *root; /* If r is 0: where the path ends. */
    int r;                   /* The best that was found: 0, or -EKEYEXPIRED before... */
    uint64_t ended_ms;       /* ...this long ago, or -EKEYREJECTED. */
    bool authority_ended;
    unsigned status; /* Why GnuTLS refused. */
};

static unsigned check_path(const struct search *search, size_t count, const struct link *root)
{
    gnutls_x509_crt_t path[PKI_CHAIN_MAX];

    for (size_t i = 0; i < count; i++)
        path[i] = search->path[i]->certificate;
    return check_below(path, count, root->certificate);
}

static void judge_path(struct search *search, size_t count, const struct link *root)
{
    const struct link *ended = NULL;
    unsigned status;

    search->paths++;
    status = check_path(search, count, root);
    if (status != 0) {
        search->status |= status;
        return;
    }
    search->path[count] = root;
    for (size_t i = 0; i <= count; i++)
        if (search->path[i]->info.not_after_ms <= search->now_ms &&
            (ended == NULL || search->path[i]->info.not_after_ms < ended->info.not_after_ms))
            ended = search->path[i];
    if (ended == NULL) {
        search->r = 0;
        search->root = root;
        return;
    }
    search->r = -EKEYEXPIRED;
    search->ended_ms = ended->info.not_after_ms;
    search->authority_ended = ended != search->path[0];
}

static void search_from(struct search *search, size_t count)
{
    const struct link *last = search->path[count - 1];

    for (size_t i = 0; i < search->roots->count && search->r != 0 && search->paths < PATHS_MAX; i++)
        if (signs(&search->roots->items[i], last) && same_cluster(&search->roots->items[i], last))
            judge_path(search, count, &search->roots->items[i]);
    for (size_t i = 1; i < search->chain->count && search->r != 0 && search->paths < PATHS_MAX; i++) {
        const struct link *next = &search->chain->items[i];
        bool used = !signs(next, last);

        for (size_t j = 1; j < count && !used; j++)
            used = memcmp(search->path[j]->info.key_id, next->info.key_id, PKI_KEY_ID_SIZE) == 0;
        if (used)
            continue;
        search->path[count] = next;
        search_from(search, count + 1);
    }
}

static int say_expired(const struct search *search, struct err *err)
{
    time_t ended = (time_t)(search->ended_ms / 1000);
    char text[64] = "";
    struct tm tm;

    if (gmtime_r(&ended, &tm) != NULL)
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm);
    return err_set(err, -EKEYEXPIRED, "the %s ended on %s",
                   search->authority_ended ? "authority that signed the certificate" : "certificate", text);
}

static int say_rejected(const struct search *search, struct err *err)
{
    const struct link *leaf = &search->chain->items[0];
    char cluster[2 * PKI_CLUSTER_ID_SIZE + 1];
    bool known = false;

    for (size_t i = 0; i < search->roots->count; i++)
        known = known || same_cluster(leaf, &search->roots->items[i]);
    id_to_hex(leaf->info.name.cluster_id, PKI_CLUSTER_ID_SIZE, cluster);
    if (!known)
        return err_set(err, -EKEYREJECTED, "the certificate is of another cluster, %s", cluster);
    if (search->status & GNUTLS_CERT_SIGNATURE_FAILURE)
        return err_set(err, -EKEYREJECTED, "the signature of the certificate is wrong");
    if (search->status != 0)
        return err_set(err, -EKEYREJECTED, "the certificate does not hold (GnuTLS status %#x)",
                       search->status);
    return err_set(
        err, -EKEYREJECTED,
        "the certificate is signed by an authority of this cluster that is not known here (any more)");
}

static int verify(const struct links *chain, const struct links *roots, uint64_t now_ms, struct pki_info *ret,
                  struct err *err)
{
    struct search search = {.chain = chain, .roots = roots, .now_ms = now_ms, .r = -EKEYREJECTED};

    search.path[0] = &chain->items[0];
    search_from(&search, 1);
    if (search.r == -EKEYEXPIRED)
        return say_expired(&search, err);
    if (search.r < 0)
        return say_rejected(&search, err);
    *ret = chain->items[0].info;
    memcpy(ret->root, search.root->info.key_id, PKI_KEY_ID_SIZE);
    return 0;
}

int pki_verify(const struct pki_blob *chain, size_t chain_count, const struct pki_blob *roots,
               size_t root_count, uint64_t now_ms, struct pki_info *ret, struct err *err)
{
    _cleanup_(links_done) struct links chain_links = {0}, root_links = {0};
    int r;

    r = open_roots(&root_links, roots, root_count, err);
    if (r == 0)
        r = open_chain(&chain_links, chain, chain_count, err);
    return r < 0 ? r : verify(&chain_links, &root_links, now_ms, ret, err);
}

int pki_verify_pinned(const struct pki_blob *chain, size_t chain_count, const uint8_t pin[PKI_PIN_SIZE],
                      uint64_t now_ms, struct pki_info *ret, size_t *ret_root, struct err *err)
{
    _cleanup_(links_done) struct links links = {0};
    int r;

    r = open_chain(&links, chain, chain_count, err);
    if (r < 0)
        return r;
    for (size_t i = 1; i < links.count; i++) {
        if (memcmp(links.items[i].info.fingerprint, pin, PKI_PIN_SIZE) != 0)
            continue;
        const struct links root = {.items = {links.items[i]}, .count = 1};

        r = verify(&links, &root, now_ms, ret, err);
        if (r == 0 && ret_root != NULL)
            *ret_root = i;
        return r;
    }
    return err_set(err, -EKEYREJECTED, "the authority that is expected is not among the certificates");
}
