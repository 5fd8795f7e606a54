/* SPDX-License-Identifier: Apache-2.0 */
/* One certificate of a peer, as it stands on the wire. Nobody who has not got an authority's key makes one
 * that is believed, so nothing that was found by chance may be. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pki/pki.h"
#include "tests/fuzz/fuzz.h"

static struct pki_blob root_of_today(void)
{
    static const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE] = {1, 2, 3};
    static struct pki_blob root;
    struct pki_key *key;

    if (root.data == NULL) {
        int r = pki_key_new(&key, NULL);

        assert(r == 0);
        r = pki_authority_new(cluster_id, key, 4102444800000, &root, NULL);
        assert(r == 0);
        pki_key_free(key);
    }
    return root;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pki_blob chain[2] = {{.data = (uint8_t *)data, .size = size}}, root = root_of_today();
    char uri[PKI_URI_SIZE];
    struct pki_info info, again;
    struct pki_name name;
    struct err err = {0};
    int r;

    r = pki_read(data, size, &info, &err);
    assert(r == 0 || r == -EBADMSG || r == -EKEYREJECTED);
    assert((r == 0) == (err.text[0] == '\0'));
    if (r == 0) {
        assert(info.name.kind != PKI_NOBODY && strlen(info.serial) > 0);
        pki_name_format(&info.name, uri);
        assert(pki_name_parse(uri, strlen(uri), &name) == 0 && memcmp(&name, &info.name, sizeof(name)) == 0);
    }
    chain[1] = root;
    assert(pki_verify(chain, 1, &root, 1, 0, &again, &err) == -EKEYREJECTED);
    assert(pki_verify(chain, 2, &root, 1, 0, &again, &err) == -EKEYREJECTED);
    return 0;
}
