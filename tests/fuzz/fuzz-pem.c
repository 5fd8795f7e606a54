/* SPDX-License-Identifier: Apache-2.0 */
/* A PEM file: certificates, or a key. */
#include <config.h>

#include <assert.h>
#include <errno.h>

#include "pki/pki.h"
#include "tests/fuzz/fuzz.h"

static void read_certificates(const uint8_t *data, size_t size)
{
    struct pki_blob blobs[PKI_CHAIN_MAX] = {0}, again[PKI_CHAIN_MAX] = {0};
    _cleanup_(pki_blob_done) struct pki_blob pem = {0};
    struct err err = {0};
    size_t count = 0, again_count = 0;
    int r;

    r = pki_from_pem(data, size, blobs, PKI_CHAIN_MAX, &count, &err);
    assert(r == 0 || ((r == -EBADMSG || r == -E2BIG) && err.text[0] != '\0'));
    if (r < 0)
        return;
    assert(count > 0 && count <= PKI_CHAIN_MAX);
    r = pki_to_pem(blobs, count, &pem, NULL);
    assert(r == 0);
    if (pem.size <= PKI_PEM_MAX) {
        r = pki_from_pem(pem.data, pem.size, again, PKI_CHAIN_MAX, &again_count, NULL);
        assert(r == 0 && again_count == count);
    }
    pki_blobs_done(blobs, count);
    pki_blobs_done(again, again_count);
}

static void read_key(const uint8_t *data, size_t size)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL, *again = NULL;
    _cleanup_(pki_blob_done) struct pki_blob der = {0};
    struct err err = {0};
    int r;

    r = pki_key_from_pem(data, size, &key, &err);
    assert(r == 0 || (r == -EBADMSG && err.text[0] != '\0'));
    if (r < 0)
        return;
    r = pki_key_encode(key, &der, NULL);
    assert(r == 0);
    r = pki_key_decode(der.data, der.size, &again, NULL);
    assert(r == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_certificates(data, size);
    read_key(data, size);
    return 0;
}
