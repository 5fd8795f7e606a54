/* SPDX-License-Identifier: Apache-2.0 */
/* What a person carries to a host that is to join: a secret that the cluster knows, and the beginning of the
 * authority's fingerprint, by which the host knows the cluster. */
#include <config.h>

#include "pki/private.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include <gnutls/crypto.h>
#include <nettle/base64.h>

#include "base/hex.h"
#include "base/str.h"

#define PREFIX       "fleet1."
#define TOKEN_BYTES  (JOIN_TOKEN_SECRET_SIZE + PKI_PIN_SIZE)
#define TOKEN_CHARS  43u /* 32 bytes in base64url without its padding (RFC 4648 §5). */
#define TOKEN_PADDED 44u
#define ALPHABET     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

static_assert(JOIN_TOKEN_TEXT_SIZE == sizeof(PREFIX) + TOKEN_CHARS, "the text's size");

int join_token_new(const void *authority, size_t size, struct join_token *ret, struct err *err)
{
    struct join_token token;
    struct pki_info info;
    int r;

    r = pki_read(authority, size, &info, err);
    if (r < 0)
        return r;
    if (info.name.kind != PKI_AUTHORITY)
        return err_set(err, -EKEYREJECTED, "not the certificate of an authority");
    r = gnutls_rnd(GNUTLS_RND_KEY, token.secret, sizeof(token.secret));
    if (r < 0)
        return pki_gnutls_error(r, "cannot make a token", err);
    memcpy(token.pin, info.fingerprint, sizeof(token.pin));
    *ret = token;
    explicit_bzero(&token, sizeof(token));
    return 0;
}

void join_token_format(const struct join_token *token, char ret[JOIN_TOKEN_TEXT_SIZE])
{
    struct base64_encode_ctx context;
    uint8_t bytes[TOKEN_BYTES];
    char text[BASE64_ENCODE_LENGTH(TOKEN_BYTES) + BASE64_ENCODE_FINAL_LENGTH];
    size_t n;

    memcpy(bytes, token->secret, sizeof(token->secret));
    memcpy(bytes + sizeof(token->secret), token->pin, sizeof(token->pin));
    base64url_encode_init(&context);
    n = base64_encode_update(&context, text, sizeof(bytes), bytes);
    n += base64_encode_final(&context, text + n);
    assert(n == TOKEN_PADDED);
    memcpy(ret, PREFIX, strlen(PREFIX));
    memcpy(ret + strlen(PREFIX), text, TOKEN_CHARS);
    ret[JOIN_TOKEN_TEXT_SIZE - 1] = '\0';
    explicit_bzero(bytes, sizeof(bytes));
    explicit_bzero(text, sizeof(text));
}

/* The padding that is left out tells the decoder where the last bits end: they must be zero. */
static bool decode(const char *text, uint8_t bytes[TOKEN_BYTES])
{
    struct base64_decode_ctx context;
    uint8_t decoded[BASE64_DECODE_LENGTH(TOKEN_PADDED)];
    char padded[TOKEN_PADDED];
    size_t size = 0;
    bool good;

    memcpy(padded, text, TOKEN_CHARS);
    padded[TOKEN_CHARS] = '=';
    base64url_decode_init(&context);
    good = base64_decode_update(&context, &size, decoded, sizeof(padded), padded) == 1 &&
           base64_decode_final(&context) == 1 && size == TOKEN_BYTES;
    if (good)
        memcpy(bytes, decoded, TOKEN_BYTES);
    explicit_bzero(&context, sizeof(context));
    explicit_bzero(decoded, sizeof(decoded));
    explicit_bzero(padded, sizeof(padded));
    return good;
}

int join_token_parse(const char *text, struct join_token *ret, struct err *err)
{
    const size_t prefix = strlen(PREFIX);
    uint8_t bytes[TOKEN_BYTES];
    size_t size;

    while (isspace((unsigned char)*text))
        text++;
    size = strlen(text);
    while (size > 0 && isspace((unsigned char)text[size - 1]))
        size--;
    /* The text itself is not repeated: it is a secret, even if it is cut short. */
    if (!str_has_prefix(text, PREFIX))
        return err_set(err, -EINVAL, "not a join token: it does not begin with \"" PREFIX "\"");
    if (size != JOIN_TOKEN_TEXT_SIZE - 1)
        return err_set(err, -EINVAL, "not a whole join token: it has %zu characters instead of %u", size,
                       JOIN_TOKEN_TEXT_SIZE - 1);
    if (strspn(text + prefix, ALPHABET) < TOKEN_CHARS || !decode(text + prefix, bytes))
        return err_set(err, -EINVAL, "not a join token: there are characters in it that no token has");
    memcpy(ret->secret, bytes, sizeof(ret->secret));
    memcpy(ret->pin, bytes + sizeof(ret->secret), sizeof(ret->pin));
    explicit_bzero(bytes, sizeof(bytes));
    return 0;
}

void join_token_digest(const uint8_t secret[JOIN_TOKEN_SECRET_SIZE], uint8_t ret[JOIN_TOKEN_DIGEST_SIZE])
{
    int r = gnutls_hash_fast(GNUTLS_DIG_SHA256, secret, JOIN_TOKEN_SECRET_SIZE, ret);

    assert(r == 0);
}

void join_token_id(const uint8_t secret[JOIN_TOKEN_SECRET_SIZE], char ret[JOIN_TOKEN_ID_SIZE])
{
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];

    join_token_digest(secret, digest);
    id_to_hex(digest, (JOIN_TOKEN_ID_SIZE - 1) / 2, ret);
}
