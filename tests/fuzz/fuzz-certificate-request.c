/* SPDX-License-Identifier: Apache-2.0 */
/* A certificate request of one who wants to join: whatever it says, what is signed is what the authority
 * decided. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pki/pki.h"
#include "tests/fuzz/fuzz.h"

#define MACHINE "0123456789abcdef0123456789abcdef"
#define END_MS  1893456000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = MACHINE},
                                         .not_after_ms = END_MS};
    static struct pki_blob authority;
    static struct pki_key *key;
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0};
    struct pki_info info;
    struct err err = {0};
    int r;

    if (key == NULL) {
        r = pki_key_new(&key, NULL);
        assert(r == 0);
        r = pki_authority_new(subject.name.cluster_id, key, 4102444800000, &authority, NULL);
        assert(r == 0);
    }
    r = pki_sign(authority.data, authority.size, key, data, size, &subject, &certificate, NULL, &err);
    assert(r == 0 || (r == -EBADMSG && err.text[0] != '\0' && certificate.data == NULL));
    if (r < 0)
        return 0;
    r = pki_verify(&certificate, 1, &authority, 1, 0, &info, &err);
    assert(r == 0 && info.not_after_ms == END_MS);
    assert(memcmp(&info.name, &subject.name, sizeof(info.name)) == 0);
    return 0;
}
